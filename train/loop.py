"""The training run: steps, checkpoints, metrics. A run that is stopped and resumed equals one that was not stopped."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from core.errors import ModelError
from export.small import Small
from export.tiny import Tiny
from train.device_mixture import DeviceMixture
from train.losses import focal_loss, heatmap_loss, tag_losses
from train.mixture import Batch, Mixture, batches, normalise
from train.optimise import AdamW, MovingAverage, cosine, freeze, learning_rate, parameter_groups
from train.step_graph import StepGraph
from train.teacher import Teacher

Record = dict[str, float]

WARM_STEPS = 5  # before a step is recorded as a graph
AHEAD = 2  # steps that the host may launch before the GPU has finished them
TIMED_STEPS = 3  # with each memory layout, to choose the faster


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of a training run. steps: of the whole run; the schedule of the learning rate depends on it.

    backbone_rate: factor of the learning rate of `backbone.*`, times each tensor's size (optimise.py). frozen_steps:
    the backbone is frozen before this step.
    freeze: a regular expression; parameters whose names it matches from the start are frozen.
    heatmap_weight, pull_weight, push_weight, foreground: see losses.py. focal: the coarsest heatmaps are probabilities
    and use focal_loss. minutes: write a checkpoint and stop after this time. timed: the schedule's length is `minutes`,
    not `steps`; a resumed run has a schedule of its own. snapshot_seconds: time between calls of Run.on_snapshot, 0 for
    none.
    bf16: automatic mixed precision; the losses are always float32. graph: on a GPU, with a DeviceMixture, run the steps
    as a CUDA graph where possible.
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
    graph: bool = True
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)


@dataclass
class Run:
    """A training run in `folder`, with checkpoint.pt and metrics.jsonl. An existing checkpoint is resumed."""

    model: nn.Module
    mixture: Mixture | DeviceMixture
    folder: Path
    options: Options
    validate: Callable[[nn.Module], Record] | None = None  # gets a model in eval mode, float32, on the run's device
    on_step: Callable[[int, Record], None] = lambda step, record: None
    on_note: Callable[[str], None] = lambda text: None  # gets what was chosen for the GPU
    on_snapshot: Callable[[int], None] = lambda seconds: None  # gets the seconds since the start; the average is ready
    teacher: Teacher | None = None  # for a Tiny or a Small
    step: int = 0  # number of the next batch
    average: MovingAverage = field(init=False)

    def __post_init__(self) -> None:
        options = self.options
        if options.timed and options.minutes is None:
            raise ValueError("timed is set and minutes is None; expected the length of the run")
        self.folder.mkdir(parents=True, exist_ok=True)
        self._on_gpu = torch.device(options.device).type == "cuda"
        self._graph: StepGraph | None = None
        self._may_record = self._on_gpu and options.graph and isinstance(self.mixture, DeviceMixture)
        self._mean, self._std = (torch.tensor(value, device=options.device) for value in (options.mean, options.std))
        self._set_layout(torch.channels_last)
        self.optimizer = AdamW(
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
        self._started = time.monotonic()
        with self._own_stream():
            if self._on_gpu:
                torch.backends.cudnn.benchmark = True
                if isinstance(self.mixture, DeviceMixture):
                    self._choose_layout(self.mixture)
            return self._train()

    def _train(self) -> bool:
        options = self.options
        snapshot, since = self._started, time.monotonic()
        ends = self._started + 60 * options.minutes if options.minutes is not None else float("inf")
        self._first = first = self.step
        total: Tensor | None = None
        pending: deque[torch.cuda.Event] = deque()
        for batch in self._batches(range(self.step, 10**9 if options.timed else options.steps)):
            losses = self._train_step(batch)
            summed = torch.stack([*losses.values()])
            total = summed if total is None else total + summed
            self.step += 1
            if self._on_gpu:
                pending.append(torch.cuda.Event())
                pending[-1].record()
                if len(pending) > AHEAD:
                    pending.popleft().synchronize()
            over = time.monotonic() > ends
            last = over if options.timed else self.step == options.steps
            if self.step % options.log_every == 0 or last:
                steps = self.step - first
                values = (total / steps).tolist()  # waits for the device
                record = {k: round(v, 7) for k, v in zip(losses, values, strict=True)}
                seconds = time.monotonic() - since
                record |= {"rate": self._rate(self.step - 1), "images_per_s": round(steps * options.batch / seconds, 1)}
                self._log("train", record)
                total, since, first = None, time.monotonic(), self.step
            else:
                self.on_step(self.step, {})
            if self.step % options.checkpoint_every == 0 or over:
                self.save()
            if options.snapshot_seconds and time.monotonic() - snapshot >= options.snapshot_seconds:
                snapshot += options.snapshot_seconds
                self.on_snapshot(round(snapshot - self._started))
            if options.validate_every and self.step % options.validate_every == 0:
                self._validate()
                since = time.monotonic()
            if over:
                return options.timed or self.step >= options.steps
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

    def _batches(self, steps: range) -> Iterator[Batch]:
        if isinstance(self.mixture, DeviceMixture):
            return self.mixture.batches(steps)
        return batches(self.mixture, self.options.batch, steps, self.options.workers)

    def _train_step(self, batch: Batch) -> dict[str, Tensor]:
        options = self.options
        rate = self._rate(self.step)
        if self.teacher is not None:
            self.teacher.set_progress(self._done())
        if self._graph is not None:
            self.optimizer.prepare(rate)
            losses = self._graph.replay(batch)
        else:
            freeze(self.model, options.freeze, backbone=self.step < options.frozen_steps)
            self.model.train()
            losses = self._backward(batch)
            self.optimizer.prepare(rate, [p for p in self.model.parameters() if p.grad is not None])
            self.optimizer.apply()
            if self._may_record and self.step >= max(self._first + WARM_STEPS, options.frozen_steps):
                self._record_graph(batch)
        self.average.update(self.model)
        return losses

    def _backward(self, batch: Batch) -> dict[str, Tensor]:
        """The losses, and clipped gradients, of this batch alone."""
        self.optimizer.zero_grad(set_to_none=True)
        losses = self._losses(batch)
        losses["loss"].backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.options.clip)
        return {name: loss.detach() for name, loss in losses.items()}

    def _record_graph(self, batch: Batch) -> None:
        """Record the step, for the batches after this one. If that fails, steps go on without a graph."""
        self._may_record = False

        def step(batch: Batch) -> dict[str, Tensor]:
            losses = self._backward(batch)
            self.optimizer.apply()
            return losses

        self.optimizer.zero_grad(set_to_none=True)  # the graph's gradients get memory of its own
        try:
            self._graph = StepGraph(step, batch)
            self.on_note("steps run as a CUDA graph")
        except RuntimeError as error:
            self.optimizer.zero_grad(set_to_none=True)
            self.on_note(f"steps run without a CUDA graph: {str(error).splitlines()[0]}")

    def _own_stream(self) -> AbstractContextManager[object]:
        """On a GPU, a stream for the whole run: the default one cannot be recorded."""
        if not self._on_gpu:
            return nullcontext()
        stream = torch.cuda.Stream(self.options.device)
        stream.wait_stream(torch.cuda.current_stream(self.options.device))
        return torch.cuda.stream(stream)

    def _set_layout(self, layout: torch.memory_format) -> None:
        self._layout = layout
        self.model.to(device=self.options.device, memory_format=layout)  # type: ignore[call-overload]  # stubs lack it
        if self.teacher is not None:
            self.teacher.to(self.options.device, layout)

    def _choose_layout(self, mixture: DeviceMixture) -> None:
        """Keep the memory layout that is faster on this GPU: the depthwise convolutions decide, differently on each."""
        freeze(self.model, self.options.freeze, backbone=self.step < self.options.frozen_steps)
        self.model.train()
        (batch,) = mixture.batches(range(self.step, self.step + 1))
        seconds = {}
        for layout in (torch.contiguous_format, torch.channels_last):
            self._set_layout(layout)
            for _ in range(2):
                self._backward(batch)  # the libraries choose kernels
            torch.cuda.synchronize()
            since = time.monotonic()
            for _ in range(TIMED_STEPS):
                self._backward(batch)
            torch.cuda.synchronize()
            seconds[layout] = (time.monotonic() - since) / TIMED_STEPS
        best = min(seconds, key=seconds.__getitem__)
        self.optimizer.zero_grad(set_to_none=True)
        self._set_layout(best)
        self.average.model.to(memory_format=best)  # type: ignore[call-overload]  # stubs lack it
        times = ", ".join(f"{layout} {1000 * value:.1f} ms" for layout, value in seconds.items())
        self.on_note(f"forward and backward take {times}")

    def _done(self) -> float:
        """The share of the run that is done, 0 to 1."""
        options = self.options
        if options.timed:
            assert options.minutes is not None
            return min(1.0, (time.monotonic() - self._started) / max(1e-9, 60 * options.minutes))
        return self.step / options.steps

    def _rate(self, step: int) -> float:
        options = self.options
        if not options.timed:
            return learning_rate(step, peak=options.rate, warm_up=options.warm_up, steps=options.steps)
        return options.rate * min(1.0, (step - self._first + 1) / max(1, options.warm_up)) * cosine(self._done())

    def _losses(self, batch: Batch) -> dict[str, Tensor]:
        options = self.options
        images, cells = (tensor.to(options.device, non_blocking=True) for tensor in (batch["image"], batch["cells"]))
        images = normalise(images, self._mean, self._std).contiguous(memory_format=self._layout)
        targets, masks = (
            [tensor.to(options.device, non_blocking=True) for tensor in tensors]
            for tensors in (batch["heatmaps"], batch["masks"])
        )
        device = torch.device(options.device).type
        # A graph must not depend on casts that were cached before it.
        with torch.autocast(device, torch.bfloat16, cache_enabled=False) if options.bf16 else nullcontext():
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
