"""Prunes the published MoveNet: removes hidden channels of its last blocks, then distils.

The channels are selected by optimal brain surgeon (Hassibi et al. 1993) on a block's output: a channel's importance is
the error of the output without it, after the remaining weights are fitted by least squares. Distillation (Hinton et
al. 2015) then fits the pruned network's features to the published one's, on pictures without labels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from export.movenet import PRUNED, PRUNED_TOP, InvertedResidual, MoveNet
from train.optimise import learning_rate

CELLS = 30_000  # feature map cells that a fit uses
RIDGE = 1e-4  # of a fit, relative to the features' mean variance
DROP_SHARE = 1 / 12  # share of the channels that are removed before the others are fitted again
BATCH = 20
HEATMAPS = 300.0  # weight of the heatmaps' squared error; the features' are relative to their variance

Fit = tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]


@torch.no_grad()
def prune(
    published: MoveNet, images: Tensor, widths: Mapping[int, int] = PRUNED, top: int = PRUNED_TOP, seed: int = 0
) -> MoveNet:
    """Prune the published network to `widths` hidden channels in these blocks and `top` channels in the top layer.

    images: (N, 3, side, side), normalised.
    """
    rng = np.random.default_rng(seed)
    first = min(widths)
    blocks = [(widths.get(index, hidden), out, stride) for index, (hidden, out, stride) in enumerate(published.shapes)]
    model = MoveNet(published.logits.out_channels, blocks, top).eval()
    _copy_all(published, model, first)
    # the input of the next block, in the published and in the pruned network: each fit also corrects the error of the
    # blocks before
    original = _apply(lambda x: published.run(published.begin(x), [], 0, first), images)
    current = original.clone()
    for index in range(first, len(published.blocks)):
        block, pruned = published.blocks[index], model.blocks[index]
        assert isinstance(block, InvertedResidual)
        assert isinstance(pruned, InvertedResidual)
        target = _apply(block, original)
        if index in widths:
            hidden = _apply(block.hidden, current)
            at = _random_cells(hidden, rng)
            residual = _cells(target, at) - (_cells(current, at) if block.adds else 0)
            channels, weight, bias = fit_subset(_cells(hidden, at), residual, widths[index])
            for ours, theirs in ((pruned.expand, block.expand), (pruned.depthwise, block.depthwise)):
                _copy_rows(ours, theirs, channels)
            _set(pruned.project, weight, bias)
        else:
            pruned.load_state_dict(block.state_dict())
        current, original = _apply(pruned, current), target
    hidden = _apply(lambda x: F.relu6(published.top(x)), current)
    target = _apply(lambda x: published.lateral32(F.relu6(published.top(x))), original)
    at = _random_cells(hidden, rng)
    channels, weight, bias = fit_subset(_cells(hidden, at), _cells(target, at), top)
    _copy_rows(model.top, published.top, channels)
    _set(model.lateral32, weight, bias)
    return model


def fit_subset(features: NDArray[np.float64], targets: NDArray[np.float64], keep: int) -> Fit:
    """Select `keep` features for a linear fit of the targets, by repeatedly dropping the least important ones.

    features: (n, C), targets: (n, M). Returns their indices (keep,), weights (M, keep) and biases (M,) of the fit.
    """
    mean, target_mean = features.mean(0), targets.mean(0)
    centred = features - mean
    gram = centred.T @ centred / len(features)
    product = centred.T @ (targets - target_mean) / len(features)
    ridge = RIDGE * gram.diagonal().mean()
    selected = np.arange(features.shape[1])
    while True:
        inverse = np.linalg.inv(gram[np.ix_(selected, selected)] + ridge * np.eye(len(selected)))
        weight = inverse @ product[selected]  # (channels, M)
        if len(selected) == keep:
            return selected, weight.T, target_mean - weight.T @ mean[selected]
        importance = np.square(weight).sum(1) / inverse.diagonal()  # increase of the squared error without the channel
        drop = min(len(selected) - keep, max(1, int(len(selected) * DROP_SHARE)))
        selected = np.delete(selected, np.argsort(importance)[:drop])


def distil(
    student: MoveNet,
    teacher: MoveNet,
    batches: Iterable[Tensor],
    steps: int,
    *,
    first: int = min(PRUNED),
    rate: float = 1.5e-4,
    on_step: Callable[[int, float], None] = lambda step, loss: None,
) -> None:
    """Train the student's blocks from `first` on, and the layers after them at 1/32 and 1/16, to reproduce the
    teacher's outputs.

    The layers before `first` are equal in both and frozen. batches: `steps` of (N, 3, side, side), normalised. on_step:
    called with the step and the loss.
    """
    student.train().requires_grad_(False)
    learning = [*student.blocks[first:], student.top, student.lateral32, student.lateral16, student.merge16]
    parameters = [parameter for module in learning for parameter in module.parameters()]
    for parameter in parameters:
        parameter.requires_grad_(True)
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=1e-4)
    variances: dict[str, float] = {}
    for step, images in enumerate(batches):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, peak=rate, warm_up=100, steps=steps)
        taps: list[Tensor] = []
        end = len(teacher.blocks)
        with torch.no_grad():
            x = teacher.run(teacher.begin(images), taps, 0, first)
            seen = list(taps)
            theirs = teacher.finish(teacher.run(x, seen, first, end), seen)
        ours = student.finish(student.run(x, taps, first, end), taps)
        loss = HEATMAPS * (torch.sigmoid(ours.logits) - torch.sigmoid(theirs.logits)).square().mean()
        for name in ("features", "context"):
            mine, wanted = getattr(ours, name), getattr(theirs, name)
            variance = float(wanted.var())
            variances[name] = 0.95 * variances.get(name, variance) + 0.05 * variance
            loss = loss + (mine - wanted).square().mean() / variances[name]
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parameters, 5.0)
        optimizer.step()
        on_step(step + 1, float(loss.detach()))
    student.eval().requires_grad_(True)


def _apply(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    return torch.cat([function(part) for part in torch.split(x, BATCH)])


def _random_cells(x: Tensor, rng: np.random.Generator) -> NDArray[np.int64]:
    cells = len(x) * x.shape[2] * x.shape[3]
    return rng.permutation(cells)[:CELLS]


def _cells(x: Tensor, at: NDArray[np.int64]) -> NDArray[np.float64]:
    """(len(at), C): the features of these cells of (N, C, h, w)."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])[torch.from_numpy(at)].double().numpy()


def _copy_all(source: MoveNet, target: MoveNet, first: int) -> None:
    """Copy all tensors except those of the blocks from `first` on and of the top layer, which differ in shape."""
    blocks = tuple(f"blocks.{index}." for index in range(first, len(source.blocks)))
    state = {k: v for k, v in source.state_dict().items() if not k.startswith((*blocks, "top.", "lateral32."))}
    target.load_state_dict(state, strict=False)


def _copy_rows(ours: nn.Conv2d, theirs: nn.Conv2d, channels: NDArray[np.int64]) -> None:
    """Copy these output channels of another convolution."""
    assert ours.bias is not None
    assert theirs.bias is not None
    ours.weight.copy_(theirs.weight[torch.from_numpy(channels)])
    ours.bias.copy_(theirs.bias[torch.from_numpy(channels)])


def _set(layer: nn.Conv2d, weight: NDArray[np.float64], bias: NDArray[np.float64]) -> None:
    assert layer.bias is not None
    layer.weight.copy_(torch.from_numpy(weight)[..., None, None])
    layer.bias.copy_(torch.from_numpy(bias))
