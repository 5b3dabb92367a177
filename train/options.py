"""The options of a training run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of a training run. steps: of the whole run; the schedule of the learning rate depends on it.

    backbone_rate: factor of the learning rate of `backbone.*`, times each tensor's size (optimise.py). frozen_steps:
    the backbone is frozen before this step.
    freeze: a regular expression; parameters whose names it matches from the start are frozen.
    heatmap_weight, pull_weight, push_weight, foreground: see losses.py. focal: the coarsest heatmaps are probabilities
    and use focal_loss. minutes: write a checkpoint and stop after this time. timed: the schedule goes from the
    first step to the end of `minutes`, whatever `steps` is; a resumed run has a schedule of its own. snapshot_seconds:
    time between calls of Run.on_snapshot, 0 for none.
    bf16: automatic mixed precision; the losses are always float32.
    """

    steps: int = 20_000
    batch: int = 16
    rate: float = 1e-3
    warm_up: int = 200
    weight_decay: float = 1e-4
    backbone_rate: float = 5.0
    frozen_steps: int = 0
    freeze: str | None = None
    average_decay: float = 0.999
    clip: float = 1.0
    heatmap_weight: float = 1.0
    foreground: float = 10.0
    focal: bool = False
    pull_weight: float = 1e-3
    push_weight: float = 1e-3
    bf16: bool = True
    device: str = "cpu"
    workers: int = 1
    log_every: int = 20
    validate_every: int = 0
    checkpoint_every: int = 200
    minutes: float | None = None
    timed: bool = False
    snapshot_seconds: float = 0.0
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
