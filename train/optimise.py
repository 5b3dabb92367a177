"""AdamW and its parameter groups, the learning rate over time, the moving average of the weights, and blends."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
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


@dataclass
class _Bucket:
    """Parameters that have taken equally many steps, and what AdamW keeps about each.

    size, eps, lr: () float32 on the device: the learning rate with the bias corrections, eps with its own, and the
    learning rate.
    """

    steps: int
    size: Tensor
    eps: Tensor
    lr: Tensor
    parameters: list[Tensor] = field(default_factory=list)
    means: list[Tensor] = field(default_factory=list)
    squares: list[Tensor] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    decays: list[float] = field(default_factory=list)


class AdamW(torch.optim.Optimizer):
    """torch.optim.AdamW with the rates of parameter_groups, in a few launches for all tensors, not a few for each.

    groups: `rate` of each is a factor of `lr`, which is one number for all groups: set it with `prepare`.
    The work on the device, `apply`, reads no number of the host, so that it can be captured in a CUDA graph: `prepare`
    writes the step's learning rate and bias corrections to the device before. Source: Loshchilov & Hutter 2019.
    """

    def __init__(
        self, groups: list[dict[str, Any]], lr: float, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8
    ) -> None:
        super().__init__(groups, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": 1e-2, "rate": 1.0})
        self._buckets: list[_Bucket] = []

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]  # no closure here
        if closure is not None:
            raise ValueError("AdamW takes no closure")
        self.prepare(
            self.param_groups[0]["lr"], [p for g in self.param_groups for p in g["params"] if p.grad is not None]
        )
        self.apply()

    @torch.no_grad()
    def prepare(self, lr: float, parameters: list[Tensor] | None = None) -> None:
        """The part of a step on the host, with learning rate `lr`, for `parameters`; by default those of the last step.

        Each parameter counts its own steps: one that was frozen at first has taken fewer.
        """
        known = {id(parameter) for bucket in self._buckets for parameter in bucket.parameters}
        if parameters is not None and known != {id(parameter) for parameter in parameters}:
            self._buckets = self._sorted(parameters)
        for group in self.param_groups:
            group["lr"] = lr
        beta1, beta2 = self.defaults["betas"]
        for bucket in self._buckets:
            bucket.steps += 1
            for parameter in bucket.parameters:
                self.state[parameter]["step"] = bucket.steps
            root = math.sqrt(1 - beta2**bucket.steps)
            bucket.size.fill_(lr * root / (1 - beta1**bucket.steps))
            bucket.eps.fill_(self.defaults["eps"] * root)
            bucket.lr.fill_(lr)

    @torch.no_grad()
    def apply(self) -> None:
        """The part on the device: moves the parameters of the last `prepare` by their gradients."""
        beta1, beta2 = self.defaults["betas"]
        for bucket in self._buckets:
            gradients = [p.grad for p in bucket.parameters if p.grad is not None]  # all have one
            torch._foreach_lerp_(bucket.means, gradients, 1 - beta1)
            torch._foreach_mul_(bucket.squares, beta2)
            torch._foreach_addcmul_(bucket.squares, gradients, gradients, 1 - beta2)
            roots = torch._foreach_sqrt(bucket.squares)
            torch._foreach_add_(roots, bucket.eps)
            moves = torch._foreach_div(bucket.means, roots)
            torch._foreach_mul_(moves, bucket.size)
            decays = torch._foreach_mul(bucket.parameters, bucket.decays)
            torch._foreach_mul_(decays, bucket.lr)
            torch._foreach_add_(moves, decays)
            torch._foreach_mul_(moves, bucket.rates)
            torch._foreach_sub_(bucket.parameters, moves)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._buckets = []

    def _sorted(self, parameters: list[Tensor]) -> list[_Bucket]:
        """The parameters in buckets of equal numbers of steps."""
        wanted = {id(parameter) for parameter in parameters}
        buckets: dict[int, _Bucket] = {}
        for group in self.param_groups:
            for parameter in group["params"]:
                if id(parameter) not in wanted:
                    continue
                state = self.state[parameter]
                if not state:
                    state |= {
                        "step": 0,
                        "exp_avg": torch.zeros_like(parameter),
                        "exp_avg_sq": torch.zeros_like(parameter),
                    }
                steps = int(state["step"])
                if steps not in buckets:
                    size, eps, lr = torch.zeros(3, device=parameter.device).unbind()
                    buckets[steps] = _Bucket(steps, size, eps, lr)
                bucket = buckets[steps]
                bucket.parameters.append(parameter)
                bucket.means.append(state["exp_avg"])
                bucket.squares.append(state["exp_avg_sq"])
                bucket.rates.append(group["rate"])
                bucket.decays.append(group["weight_decay"])
        return list(buckets.values())


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
def blend(model: nn.Module, other: nn.Module, share: float) -> None:
    """Interpolate, in place, from the model's tensors to those of the model that it was fine-tuned from; share: weight
    of the latter.

    The result keeps the original model's abilities and most of the fine-tuning (Wortsman et al. 2022, WiSE-FT).
    """
    theirs = other.state_dict()
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            value.lerp_(theirs[name].to(value.device), share)


def freeze(model: nn.Module, pattern: str | None, *, backbone: bool) -> None:
    """Disable the gradients of parameters whose names match `pattern`, and of `backbone.*` if `backbone`; enable those
    of the others."""
    for name, parameter in model.named_parameters():
        matched = pattern is not None and re.match(pattern, name) is not None
        parameter.requires_grad_(not (matched or (backbone and name.startswith("backbone."))))
