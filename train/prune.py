"""Make the published MoveNet small enough to bundle: fewer hidden channels in its last blocks, then distillation.

Which channels go is decided by optimal brain surgeon (Hassibi et al. 1993) on what a block writes: a channel matters
as much as the block's output, refitted by least squares, misses it. Distillation (Hinton et al. 2015) then brings the
pruned network's features back to the published one's, on pictures without labels.
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

CELLS = 30_000  # places in the pictures that a fit looks at
RIDGE = 1e-4  # of a fit, in the features' mean variance
AT_ONCE = 1 / 12  # share of the channels that go before the others are weighed again
BATCH = 20
HEATMAPS = 300.0  # weight of the heatmaps' squared error; the features' are relative to their variance

Fit = tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]


@torch.no_grad()
def prune(
    published: MoveNet, images: Tensor, widths: Mapping[int, int] = PRUNED, top: int = PRUNED_TOP, seed: int = 0
) -> MoveNet:
    """The network with `widths` hidden channels in these blocks and `top` in the top, from the published one.

    images: (N, 3, side, side), normalised.
    """
    rng = np.random.default_rng(seed)
    first = min(widths)
    blocks = [(widths.get(index, hidden), out, stride) for index, (hidden, out, stride) in enumerate(published.shapes)]
    model = MoveNet(published.logits.out_channels, blocks, top).eval()
    _copy_all(published, model, first)
    wanted = _apply(
        lambda x: published.run(published.begin(x), [], 0, first), images
    )  # into the next block, as published
    given = wanted.clone()  # the same, behind the blocks that are thin already: a fit mends what they spoilt
    for index in range(first, len(published.blocks)):
        block, thinner = published.blocks[index], model.blocks[index]
        assert isinstance(block, InvertedResidual)
        assert isinstance(thinner, InvertedResidual)
        after = _apply(block, wanted)
        if index in widths:
            hidden = _apply(block.hidden, given)
            at = _places(hidden, rng)
            missing = _cells(after, at) - (_cells(given, at) if block.adds else 0)
            kept, weight, bias = fit_subset(_cells(hidden, at), missing, widths[index])
            for ours, theirs in ((thinner.expand, block.expand), (thinner.depthwise, block.depthwise)):
                _copy_rows(ours, theirs, kept)
            _set(thinner.project, weight, bias)
        else:
            thinner.load_state_dict(block.state_dict())
        given, wanted = _apply(thinner, given), after
    hidden = _apply(lambda x: F.relu6(published.top(x)), given)
    target = _apply(lambda x: published.lateral32(F.relu6(published.top(x))), wanted)
    at = _places(hidden, rng)
    kept, weight, bias = fit_subset(_cells(hidden, at), _cells(target, at), top)
    _copy_rows(model.top, published.top, kept)
    _set(model.lateral32, weight, bias)
    return model


def fit_subset(features: NDArray[np.float64], targets: NDArray[np.float64], keep: int) -> Fit:
    """The `keep` features that together explain the targets best, as far as dropping the least of them finds them.

    features: (n, C), targets: (n, M). Returns their indices (keep,), weights (M, keep) and biases (M,) of the fit.
    """
    mean, target_mean = features.mean(0), targets.mean(0)
    centred = features - mean
    gram = centred.T @ centred / len(features)
    product = centred.T @ (targets - target_mean) / len(features)
    ridge = RIDGE * gram.diagonal().mean()
    kept = np.arange(features.shape[1])
    while True:
        inverse = np.linalg.inv(gram[np.ix_(kept, kept)] + ridge * np.eye(len(kept)))
        weight = inverse @ product[kept]  # (channels, M)
        if len(kept) == keep:
            return kept, weight.T, target_mean - weight.T @ mean[kept]
        misses = np.square(weight).sum(1) / inverse.diagonal()  # squared error more, without this channel
        drop = min(len(kept) - keep, max(1, int(len(kept) * AT_ONCE)))
        kept = np.delete(kept, np.argsort(misses)[:drop])


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
    """Trains the student's blocks from `first` on, and what follows at 1/32 and 1/16, to give what the teacher gives.

    What comes before is the teacher's, in both. batches: `steps` of (N, 3, side, side), normalised. on_step: called
    with the step and the loss.
    """
    student.train().requires_grad_(False)
    learning = [*student.blocks[first:], student.top, student.lateral32, student.lateral16, student.merge16]
    parameters = [parameter for module in learning for parameter in module.parameters()]
    for parameter in parameters:
        parameter.requires_grad_(True)
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=1e-4)
    variances: dict[int, float] = {}
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
        loss = HEATMAPS * (torch.sigmoid(ours[0]) - torch.sigmoid(theirs[0])).square().mean()
        for which in (1, 3):  # features, context
            variance = float(theirs[which].var())
            variances[which] = 0.95 * variances.get(which, variance) + 0.05 * variance
            loss = loss + (ours[which] - theirs[which]).square().mean() / variances[which]
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parameters, 5.0)
        optimizer.step()
        on_step(step + 1, float(loss.detach()))
    student.eval().requires_grad_(True)


def _apply(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    return torch.cat([function(part) for part in torch.split(x, BATCH)])


def _places(x: Tensor, rng: np.random.Generator) -> NDArray[np.int64]:
    cells = len(x) * x.shape[2] * x.shape[3]
    return rng.permutation(cells)[:CELLS]


def _cells(x: Tensor, at: NDArray[np.int64]) -> NDArray[np.float64]:
    """(len(at), C): the features at these places of (N, C, h, w)."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])[torch.from_numpy(at)].double().numpy()


def _copy_all(source: MoveNet, target: MoveNet, first: int) -> None:
    """All tensors but those of the blocks from `first` on and of the top, which differ in shape."""
    blocks = tuple(f"blocks.{index}." for index in range(first, len(source.blocks)))
    state = {k: v for k, v in source.state_dict().items() if not k.startswith((*blocks, "top.", "lateral32."))}
    target.load_state_dict(state, strict=False)


def _copy_rows(ours: nn.Conv2d, theirs: nn.Conv2d, kept: NDArray[np.int64]) -> None:
    """The output channels `kept` of another convolution."""
    assert ours.bias is not None
    assert theirs.bias is not None
    ours.weight.copy_(theirs.weight[torch.from_numpy(kept)])
    ours.bias.copy_(theirs.bias[torch.from_numpy(kept)])


def _set(layer: nn.Conv2d, weight: NDArray[np.float64], bias: NDArray[np.float64]) -> None:
    assert layer.bias is not None
    layer.weight.copy_(torch.from_numpy(weight)[..., None, None])
    layer.bias.copy_(torch.from_numpy(bias))
