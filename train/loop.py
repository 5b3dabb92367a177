"""The training run: steps, checkpoints, metrics. A run that is stopped and resumed equals one that was not stopped."""

from __future__ import annotations

import json
import os
import pickle
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from core.errors import ModelError
from core.files import write_whole
from train.device_mixture import DeviceMixture
from train.mixture import Batch, Mixture, batches
from train.optimise import MovingAverage, cosine, learning_rate, parameter_groups
from train.options import Options
from train.step import Step
from train.teacher import Teacher

Record = dict[str, float]

AHEAD = 2  # steps that the host may launch before the GPU has finished them


@dataclass
class Run:
    """A training run in `folder`, with checkpoint.pt and metrics.jsonl. An existing checkpoint is resumed.

    validate: called at its end, and every `validate_every` steps, with the average: in eval mode, float32, on the run's
    device.
    """

    model: nn.Module
    mixture: Mixture | DeviceMixture
    folder: Path
    options: Options
    validate: Callable[[nn.Module], Record] | None = None
    on_step: Callable[[int, Record], None] = lambda step, record: None
    on_note: Callable[[str], None] = lambda text: None  # gets what was chosen for the GPU
    on_snapshot: Callable[[int], None] = lambda seconds: None  # gets the seconds since the start; the average is ready
    teacher: Teacher | None = None  # for an OverMoveNet
    step: int = 0  # number of the next batch
    average: MovingAverage = field(init=False)

    def __post_init__(self) -> None:
        options = self.options
        if options.timed and options.minutes is None:
            raise ValueError("timed is set and minutes is None; expected the length of the run")
        self.folder.mkdir(parents=True, exist_ok=True)
        self._on_gpu = torch.device(options.device).type == "cuda"
        self.model.to(options.device)
        self.optimizer = torch.optim.AdamW(
            parameter_groups(self.model, options.weight_decay, options.backbone_rate), lr=options.rate
        )
        self.average = MovingAverage(self.model, options.average_decay)
        self._validated: float | None = None  # the step of the last validation
        self._started: float | None = None
        self._seconds_before = 0.0  # of the run, until it was resumed
        self._snapshots = 0
        self._learn = Step(
            self.model, self.optimizer, self.average, self.mixture, options, teacher=self.teacher, on_note=self.on_note
        )
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
        self._started = started = time.monotonic()
        self._ends = started + 60 * options.minutes if options.minutes is not None else float("inf")
        if self._on_gpu:
            self._prepare_gpu()
        since = time.monotonic()
        self._first = first = self.step
        total: Tensor | None = None
        pending: deque[torch.cuda.Event] = deque()
        for batch in self._batches(range(self.step, 10**9 if options.timed else options.steps)):
            if self.step <= self._first + 1:  # the first step is not counted: cuDNN's search is part of it
                self._counted_from = time.monotonic()
            if self.teacher is not None:
                self.teacher.set_progress(self._done())
            losses = self._learn(batch, rate=self._rate(self.step), frozen=self.step < options.frozen_steps)
            summed = torch.stack([*losses.values()])
            total = summed if total is None else total + summed
            self.step += 1
            if self._on_gpu:
                pending.append(torch.cuda.Event())  # type: ignore[no-untyped-call]  # torch has no types for it
                pending[-1].record()
                if len(pending) > AHEAD:
                    pending.popleft().synchronize()
            over = time.monotonic() > self._ends
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
            if self.step % options.checkpoint_every == 0:
                self.save()
            self._snapshot()
            if over or last:
                break
            if self._validates_now():
                self._validate()
                since = time.monotonic()
        complete = options.timed or self.step >= options.steps
        self.save()
        if self._validated != self.step and (complete or self._validates_now()):
            self._validate()
        return complete

    def save(self) -> None:
        """Write the checkpoint; if the run is killed meanwhile, the previous one remains."""
        state = {
            "step": self.step,
            "model": self.model.state_dict(),
            "average": self.average.model.state_dict(),
            "updates": self.average.updates,
            "optimizer": self.optimizer.state_dict(),
            "seconds": self._seconds(),
        }
        temporary = self.checkpoint_path.with_suffix(".tmp")
        torch.save(state, temporary)  # by its name: a signal within a write to a Python file becomes another error
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())  # before the old one is replaced, also for a machine that loses power
        temporary.replace(self.checkpoint_path)

    def _snapshot(self) -> None:
        """Call on_snapshot if the next one is due."""
        due = (self._snapshots + 1) * self.options.snapshot_seconds
        if due and self._seconds() >= due:
            self._snapshots += 1
            self.on_snapshot(round(due))

    def _seconds(self) -> float:
        """How long the run has taken, also before it was resumed."""
        return self._seconds_before + (0.0 if self._started is None else time.monotonic() - self._started)

    def _resume(self) -> None:
        try:
            state = torch.load(self.checkpoint_path, map_location=self.options.device, weights_only=True)
        except (EOFError, RuntimeError, OSError, ValueError, pickle.UnpicklingError) as error:
            why = str(error).partition("\n")[0] or "it is empty"
            remedy = "remove it to start the run again, or give another --run folder"
            raise ModelError(f"{self.checkpoint_path} is damaged ({why}); {remedy}") from error
        try:
            self.model.load_state_dict(state["model"])
            self.average.model.load_state_dict(state["average"])
            self.optimizer.load_state_dict(state["optimizer"])
        except (KeyError, RuntimeError, ValueError) as error:
            raise ModelError(
                f"{self.checkpoint_path} is of another model; give another --run folder: {str(error).splitlines()[0]}"
            ) from error
        self.average.updates = state["updates"]
        self.step, self._seconds_before = state["step"], state.get("seconds", 0.0)
        if self.options.snapshot_seconds:
            self._snapshots = int(self._seconds_before / self.options.snapshot_seconds)
        if self.metrics_path.exists():  # remove records of steps after the checkpoint, which will be repeated
            records = [r for r in _records(self.metrics_path) if r["step"] <= self.step]
            write_whole(self.metrics_path, "".join(json.dumps(r) + "\n" for r in records).encode())
            self._validated = max((r["step"] for r in records if r["kind"] == "validation"), default=None)

    def _prepare_gpu(self) -> None:
        if isinstance(self.mixture, DeviceMixture):
            (batch,) = self.mixture.batches(range(self.step, self.step + 1))
            self._learn.choose_layout(batch, frozen=self.step < self.options.frozen_steps)
        torch.backends.cudnn.benchmark = True  # not before: the search takes long, and one layout needs it

    def _batches(self, steps: range) -> Iterator[Batch]:
        if isinstance(self.mixture, DeviceMixture):
            return self.mixture.batches(steps)
        return batches(self.mixture, self.options.batch, steps, self.options.workers)

    def _done(self) -> float:
        """The share of the run that is done, 0 to 1; of a timed one, since its first step."""
        if self.options.timed:
            return min(1.0, (time.monotonic() - self._counted_from) / max(1e-9, self._ends - self._counted_from))
        return self.step / self.options.steps

    def _rate(self, step: int) -> float:
        options = self.options
        if not options.timed:
            return learning_rate(step, peak=options.rate, warm_up=options.warm_up, steps=options.steps)
        return options.rate * min(1.0, (step - self._first + 1) / max(1, options.warm_up)) * cosine(self._done())

    def _validates_now(self) -> bool:
        return self.options.validate_every > 0 and self.step % self.options.validate_every == 0

    def _validate(self) -> None:
        if self.validate is not None:
            self._log("validation", self.validate(self.average.model))
            self._validated = self.step

    def _log(self, kind: str, record: Record) -> None:
        with self.metrics_path.open("a") as file:
            file.write(json.dumps({"step": self.step, "kind": kind, **record}) + "\n")
        self.on_step(self.step, record)


def _records(path: Path) -> list[dict[str, Any]]:
    """The records of metrics.jsonl. Without a line that a process did not finish when it was killed."""
    records = []
    for line in path.read_text().splitlines():
        with suppress(ValueError):
            records.append(json.loads(line))
    return records
