"""The training run: steps, checkpoints, metrics. A run that is stopped and resumed equals one that was not stopped."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from core.errors import ModelError
from export.small import Small
from export.tiny import Tiny
from train.losses import focal_loss, heatmap_loss, tag_losses
from train.mixture import Batch, Mixture, batches, normalise
from train.optimise import MovingAverage, freeze, learning_rate, parameter_groups
from train.teacher import Teacher

Record = dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of a training run. steps: of the whole run; the schedule of the learning rate depends on it.

    backbone_rate: factor of the learning rate of `backbone.*`, times each tensor's size (optimise.py). frozen_steps:
    the backbone is frozen before this step.
    freeze: a regular expression; parameters whose names it matches from the start are frozen.
    heatmap_weight, pull_weight, push_weight, foreground: see losses.py. focal: the coarsest heatmaps are probabilities
    and use focal_loss. minutes: write a checkpoint and stop after this time.
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
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)


@dataclass
class Run:
    """A training run in `folder`, with checkpoint.pt and metrics.jsonl. An existing checkpoint is resumed."""

    model: nn.Module
    mixture: Mixture
    folder: Path
    options: Options
    validate: Callable[[nn.Module], Record] | None = None  # gets a model in eval mode, float32, on the run's device
    on_step: Callable[[int, Record], None] = lambda step, record: None
    teacher: Teacher | None = None  # for a Tiny or a Small
    step: int = 0  # number of the next batch
    average: MovingAverage = field(init=False)

    def __post_init__(self) -> None:
        options = self.options
        self.folder.mkdir(parents=True, exist_ok=True)
        self.model.to(device=options.device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # stubs lack it
        if self.teacher is not None:
            self.teacher.to(options.device)
        self.optimizer = torch.optim.AdamW(
            parameter_groups(self.model, options.weight_decay, options.backbone_rate), lr=options.rate
        )
        self.average = MovingAverage(self.model, options.average_decay)
        if self.checkpoint_path.exists():
            self._resume()

    @property
    def checkpoint_path(self) -> Path:
        return self.folder / "checkpoint.pt"

    @property
    def metrics_path(self) -> Path:
        return self.folder / "metrics.jsonl"

    def train(self) -> bool:
        """Train until the last step or for `minutes`, with checkpoints. Returns whether the run is complete."""
        options = self.options
        ends = time.monotonic() + 60 * options.minutes if options.minutes is not None else float("inf")
        record: Record = {}
        since = time.monotonic()
        first = self.step
        for batch in batches(self.mixture, options.batch, range(self.step, options.steps), options.workers):
            losses = self._train_step(batch)
            self.step += 1
            record = {k: record.get(k, 0.0) + float(v) for k, v in losses.items()}
            if self.step % options.log_every == 0 or self.step == options.steps:
                steps = min(options.log_every, self.step - first)
                seconds = time.monotonic() - since
                record = {k: round(v / steps, 7) for k, v in record.items()}
                record |= {"rate": self._rate(self.step - 1), "images_per_s": round(steps * options.batch / seconds, 1)}
                self._log("train", record)
                record, since, first = {}, time.monotonic(), self.step
            else:
                self.on_step(self.step, {})
            over = time.monotonic() > ends
            if self.step % options.checkpoint_every == 0 or over:
                self.save()
            if options.validate_every and self.step % options.validate_every == 0:
                self._validate()
                since = time.monotonic()
            if over:
                return self.step >= options.steps
        self.save()
        return True

    def save(self) -> None:
        """Write the checkpoint; if the run is killed meanwhile, the previous one remains."""
        state = {
            "step": self.step,
            "model": self.model.state_dict(),
            "average": self.average.model.state_dict(),
            "updates": self.average.updates,
            "optimizer": self.optimizer.state_dict(),
        }
        temporary = self.checkpoint_path.with_suffix(".tmp")
        torch.save(state, temporary)
        temporary.replace(self.checkpoint_path)

    def _resume(self) -> None:
        state = torch.load(self.checkpoint_path, map_location=self.options.device, weights_only=True)
        try:
            self.model.load_state_dict(state["model"])
            self.average.model.load_state_dict(state["average"])
            self.optimizer.load_state_dict(state["optimizer"])
        except (KeyError, RuntimeError, ValueError) as error:
            raise ModelError(
                f"{self.checkpoint_path} is of another model; give another --run folder: {str(error).splitlines()[0]}"
            ) from error
        self.average.updates = state["updates"]
        self.step = state["step"]
        if self.metrics_path.exists():  # remove records of steps after the checkpoint, which will be repeated
            lines = [
                line for line in self.metrics_path.read_text().splitlines() if json.loads(line)["step"] <= self.step
            ]
            self.metrics_path.write_text("".join(line + "\n" for line in lines))

    def _train_step(self, batch: Batch) -> dict[str, Tensor]:
        options = self.options
        rate = self._rate(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["rate"]
        freeze(self.model, options.freeze, backbone=self.step < options.frozen_steps)
        self.model.train()
        losses = self._losses(batch)
        self.optimizer.zero_grad(set_to_none=True)
        losses["loss"].backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), options.clip)
        self.optimizer.step()
        self.average.update(self.model)
        return {name: loss.detach() for name, loss in losses.items()}

    def _rate(self, step: int) -> float:
        options = self.options
        return learning_rate(step, peak=options.rate, warm_up=options.warm_up, steps=options.steps)

    def _losses(self, batch: Batch) -> dict[str, Tensor]:
        options = self.options
        images, cells = (tensor.to(options.device, non_blocking=True) for tensor in (batch["image"], batch["cells"]))
        images = normalise(images, options.mean, options.std).contiguous(memory_format=torch.channels_last)
        targets, masks = (
            [tensor.to(options.device, non_blocking=True) for tensor in tensors]
            for tensors in (batch["heatmaps"], batch["masks"])
        )
        device = torch.device(options.device).type
        with torch.autocast(device, torch.bfloat16) if options.bf16 else nullcontext():
            if self.teacher is None:
                outputs = self.model(images)
                feature_loss = images.new_zeros(())
            else:
                assert isinstance(self.model, Tiny | Small)
                parts = self.model.backbone(images)
                outputs = self.model.head(*parts)
                feature_loss = self.teacher.teach(images, batch["set"], parts, targets[0], masks[0])
        outputs = [output.float() for output in outputs]
        joints = self.mixture.joints
        losses = {}
        for stride, maps, wanted, known in zip(self.mixture.strides, outputs, targets, masks, strict=True):
            loss = focal_loss if options.focal and stride == self.mixture.strides[0] else heatmap_loss
            losses[f"heatmaps_{stride}"] = loss(maps[:, :joints], wanted, known, options.foreground)
        pull, push = tag_losses(outputs[0][:, joints:], cells)
        total = options.heatmap_weight * torch.stack(list(losses.values())).sum()
        total = total + options.pull_weight * pull + options.push_weight * push + feature_loss
        losses |= {"pull": pull, "push": push}
        return {"loss": total, **losses} | ({} if self.teacher is None else {"features": feature_loss})

    def _validate(self) -> None:
        if self.validate is not None:
            self._log("validation", self.validate(self.average.model))

    def _log(self, kind: str, record: Record) -> None:
        with self.metrics_path.open("a") as file:
            file.write(json.dumps({"step": self.step, "kind": kind, **record}) + "\n")
        self.on_step(self.step, record)
