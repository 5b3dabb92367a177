"""AdamW's parameter groups, the learning rate over time, the moving average of the weights, and blends of them."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

MIN_BIAS = 0.01  # smaller biases get the learning rate of this size


def parameter_groups(model: nn.Module, weight_decay: float, backbone_rate: float = 1.0) -> list[dict[str, Any]]:
    """Groups for AdamW; `rate` is a factor of the learning rate. Biases and batch-norm have no weight decay.

    Each tensor of `backbone.*` and of tiny's tag layer `tags.*` has its own group, with a rate of backbone_rate times
    its root mean square. Adam's steps have the size of the rate, whatever the gradient; and with batch-norm folded into
    the weights, the layers' sizes differ by a factor of thousands (in MoveNet 5e-4 to 2). With these rates all tensors
    change by the same share (Shazeer & Stern 2018, sec. 8).
    """
    groups: dict[bool, list[Tensor]] = {}
    single = []
    for name, parameter in model.named_parameters():
        decays = parameter.ndim > 1
        if name.startswith(("backbone.", "tags.")):
            size = float(parameter.detach().square().mean().sqrt())
            rate = backbone_rate * (size if decays else max(size, MIN_BIAS))
            single.append({"params": [parameter], "weight_decay": weight_decay if decays else 0.0, "rate": rate})
        else:
            groups.setdefault(decays, []).append(parameter)
    return single + [
        {"params": members, "weight_decay": weight_decay if decays else 0.0, "rate": 1.0}
        for decays, members in groups.items()
    ]


def learning_rate(step: int, *, peak: float, warm_up: int, steps: int, floor: float = 0.01) -> float:
    """Linear warm-up to `peak`, then half a cosine to floor * peak at `steps`. Source: Loshchilov & Hutter 2017."""
    if step < warm_up:
        return peak * (step + 1) / warm_up
    done = min(1.0, (step - warm_up) / max(1, steps - warm_up))
    return peak * cosine(done, floor)


def cosine(done: float, floor: float = 0.01) -> float:
    """Half a cosine from 1 at done = 0 to `floor` at 1."""
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * done))


class MovingAverage:
    """Exponential moving average of a model's parameters and buffers; this model is validated and published.

    The decay grows to `decay` over the first steps as (1 + n) / (10 + n), so that the initial weights have no effect.
    """

    def __init__(self, model: nn.Module, decay: float = 0.999) -> None:
        self.decay = decay
        self.updates = 0
        self.model = copy.deepcopy(model).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        averages = self.model.state_dict()
        floating = []
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                floating.append((averages[name], value))
            else:
                averages[name].copy_(value)
        ours, theirs = zip(*floating, strict=True)
        torch._foreach_lerp_(ours, theirs, weight=1 - decay)


@torch.no_grad()
def blend(model: nn.Module, other: Mapping[str, Tensor], share: float) -> None:
    """Interpolate, in place, from the model's tensors to those of the model that it was fine-tuned from; share: weight
    of the latter. Tensors that `other` lacks stay as they are.

    The result keeps the original model's abilities and most of the fine-tuning (Wortsman et al. 2022, WiSE-FT).
    """
    for name, value in model.state_dict().items():
        if value.is_floating_point() and name in other:
            value.lerp_(other[name].to(value), share)


def freeze(model: nn.Module, pattern: str | None, *, backbone: bool) -> None:
    """Disable the gradients of parameters whose names match `pattern`, and of `backbone.*` if `backbone`; enable those
    of the others."""
    for name, parameter in model.named_parameters():
        matched = pattern is not None and re.match(pattern, name) is not None
        parameter.requires_grad_(not (matched or (backbone and name.startswith("backbone."))))
