"""FrameStep: the three calls from a frame to its people. HostStep implements it in host memory.

The pipeline manages slots and order; a step manages the buffers of each slot. On a device, `prepare` fills pinned
memory, `infer` queues the device's work, and `finish` waits for the slot's event.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from core.spec import ModelSpec
from engine.device import Device
from engine.runner import Heads, Images, ParallelRunner, Runner
from kernels.options import DecodeOptions
from pipeline.letterbox import Letterbox
from pipeline.types import People, Picture, on_host

SLOTS = 3  # one being prepared, one in the engine, one being grouped


@dataclass(frozen=True, kw_only=True)
class PassOptions:
    """The network's input, and how its maps are decoded.

    size: short side of the input instead of the model's own. flip: average with the mirrored frame, twice the images.
    batch: frames per pass.
    """

    size: int | None = None
    flip: bool = False
    batch: int = 1
    decode: DecodeOptions = field(default_factory=DecodeOptions)

    @property
    def images_per_frame(self) -> int:
        """2 with flip: the frame itself, and mirrored."""
        return 2 if self.flip else 1

    def letterbox(self, frame_wh: tuple[int, int], spec: ModelSpec) -> Letterbox:
        return Letterbox.for_model(frame_wh, spec, self.size)

    def input_shape(self, frame_wh: tuple[int, int], spec: ModelSpec) -> tuple[int, int, int]:
        """N, H and W of the input for frames of this size."""
        return self.batch * self.images_per_frame, *self.letterbox(frame_wh, spec).input_hw


class FrameStep(Protocol):
    """Slots 0 .. slots - 1 hold up to `batch` frames of one size each. A slot is never in two calls at the same time.

    `prepare`, `infer` and `finish` are called from one thread each, in frame order. Frames may differ in size from
    those before in the same slot.
    """

    spec: ModelSpec
    engine: str  # as in `--stats`
    about: str  # one line: model, engine, and why it was chosen
    slots: int
    batch: int  # frames per pass; with fewer, the rest of the slot's old content is processed too
    concurrency: int  # passes that `infer_concurrent` should run at the same time; 1 if that is not faster

    @property
    def device(self) -> Device | None:
        """Where `prepare` takes Surfaces from; None: it copies them to the host."""
        ...

    @property
    def precision(self) -> str:
        """The precision of the network's arithmetic: "fp32", "fp16" or "bf16"."""
        ...

    def prepare(self, slot: int, pictures: Sequence[Picture]) -> None:
        """Resize and normalise the pictures of 1 to `batch` frames, all of one Layout, into the slot.

        Arrays may change after the call.
        """

    def infer(self, slot: int) -> None:
        """Run the network on the slot, or queue it."""

    def infer_concurrent(self, slot: int) -> None:
        """As `infer`, called from up to `concurrency` threads at the same time, with different slots."""

    def finish(self, slot: int) -> list[People]:
        """Wait for the slot and return the people of each of its frames, in frame pixels. The slot is free then."""
        ...

    def drain(self) -> None:
        """Wait for all pending work and free all slots. Called at the end of a run, when its threads have ended."""

    def input_shape(self, frame_wh: tuple[int, int]) -> tuple[int, int, int]:
        """(N, H, W) of the network's input for frames of this size."""
        ...

    def warm_up(self, frame_wh: tuple[int, int]) -> None:
        """Compile and allocate everything for frames of this size, so that the first one does not wait.

        Raises EngineError if a frame fails.
        """

    def time_engine(self, frame_wh: tuple[int, int], *, seconds: float, concurrent: bool = False) -> list[float]:
        """Milliseconds of single passes of the engine alone, at least three, repeated for about `seconds`.

        concurrent: run `concurrency` passes at the same time, and measure the time between the ends of passes.
        """
        ...

    def time_parts(self, image: NDArray[np.uint8], *, seconds: float) -> dict[str, list[float]]:
        """Milliseconds that the device needs for each part of this frame; empty for a step on the host."""
        ...

    def close(self) -> None:
        """Release everything. May be called twice."""


@dataclass
class _Slot:
    """The buffers of one slot; they are reallocated when the input shape changes."""

    letterbox: Letterbox | None = None
    frames: int = 0  # frames prepared, at most the batch
    images: NDArray[np.float32] = field(default_factory=lambda: np.empty((0, 3, 0, 0), np.float32))  # (N, 3, H, W)
    heatmaps: NDArray[np.float32] = field(default_factory=lambda: np.empty((0, 0, 0, 0), np.float32))
    tags: NDArray[np.float32] = field(default_factory=lambda: np.empty((0, 0, 0, 0), np.float32))
    half: NDArray[np.float16] | None = None  # `images` for a float16 model


class HostStep:
    """Preprocesses and decodes with `kernels.cpu`, and runs the network with any Runner.

    runner_for: gives the Runner for an input (N, H, W). The step does not close it; `close` calls `on_close`.
    parallel: the runner of concurrent passes, if there is one.
    """

    def __init__(
        self,
        runner_for: Callable[[tuple[int, int, int]], Runner],
        spec: ModelSpec,
        options: PassOptions,
        *,
        engine: str,
        about: str = "",
        parallel: ParallelRunner | None = None,
        on_close: Callable[[], None] = lambda: None,
    ) -> None:
        self.spec = spec
        self.engine = engine
        self.concurrency = 1 if parallel is None else parallel.concurrency
        self.slots = SLOTS if self.concurrency == 1 else self.concurrency + SLOTS
        self._parallel = parallel
        self.about = about
        self.runner_for = runner_for
        self.options = options
        self.batch = options.batch
        self._on_close = on_close
        self._slots: Sequence[_Slot] = [_Slot() for _ in range(self.slots)]

    device: Device | None = None

    @property
    def precision(self) -> str:
        return self.spec.precision if self._parallel is None else self._parallel.precision

    def prepare(self, slot: int, pictures: Sequence[Picture]) -> None:
        from kernels.cpu import preprocess

        images = [on_host(picture) for picture in pictures]
        buffers = self._slots[slot]
        letterbox = self.options.letterbox((images[0].shape[1], images[0].shape[0]), self.spec)
        if buffers.letterbox is None or buffers.letterbox.input_hw != letterbox.input_hw:
            images_per_pass = self.batch * self.options.images_per_frame
            buffers.images = np.zeros((images_per_pass, 3, *letterbox.input_hw), np.float32)
        buffers.letterbox, buffers.frames = letterbox, len(images)
        for image, (upright, *mirrored) in zip(images, self._of_each_frame(buffers.images), strict=False):
            preprocess(
                image,
                upright,
                scale=letterbox.scale,
                center=letterbox.center,
                mean=self.spec.mean,
                std=self.spec.std,
            )
            for twin in mirrored:
                twin[:] = upright[:, :, ::-1]

    def infer(self, slot: int) -> None:
        buffers = self._slots[slot]
        images, into = self._prepared(buffers)
        n, _, h, w = images.shape
        heads = self.runner_for((n, h, w)).infer(images)
        # a copy: the outputs are valid until the runner's next call, which comes before this slot is decoded
        np.copyto(into.heatmaps, heads.heatmaps)
        np.copyto(into.tags, heads.tags)

    def infer_concurrent(self, slot: int) -> None:
        assert self._parallel is not None, "concurrency is 1"
        self._parallel.infer_into(*self._prepared(self._slots[slot]))

    def _prepared(self, buffers: _Slot) -> tuple[Images, Heads]:
        """The network's input for the prepared frames, and the buffers for its outputs."""
        n, _, h, w = buffers.images.shape
        if buffers.heatmaps.shape != (n, self.spec.num_joints, h // 2, w // 2):
            buffers.heatmaps = np.empty((n, self.spec.num_joints, h // 2, w // 2), np.float32)
            buffers.tags = np.empty((n, self.spec.tag_channels, h // 4, w // 4), np.float32)
        used = buffers.frames * self.options.images_per_frame
        return self._in_dtype(buffers)[:used], Heads(buffers.heatmaps[:used], buffers.tags[:used])

    def finish(self, slot: int) -> list[People]:
        from kernels.cpu import decode

        buffers = self._slots[slot]
        assert buffers.letterbox is not None
        maps = zip(self._of_each_frame(buffers.heatmaps), self._of_each_frame(buffers.tags), strict=True)
        decoded = (
            decode(heatmaps, tags, self.options.decode) for heatmaps, tags in itertools.islice(maps, buffers.frames)
        )
        return [people_in_frame(keypoints, scores, buffers.letterbox) for keypoints, scores in decoded]

    def drain(self) -> None:
        """Does nothing: no call leaves pending work."""

    def input_shape(self, frame_wh: tuple[int, int]) -> tuple[int, int, int]:
        return self.options.input_shape(frame_wh, self.spec)

    def warm_up(self, frame_wh: tuple[int, int]) -> None:
        blank = np.zeros((frame_wh[1], frame_wh[0], 3), np.uint8)
        for slot in range(self.slots):
            self.prepare(slot, [blank] * self.batch)
            self.infer(slot)
            if self.concurrency > 1:
                self.infer_concurrent(slot)
            self.finish(slot)

    def time_engine(self, frame_wh: tuple[int, int], *, seconds: float, concurrent: bool = False) -> list[float]:
        if concurrent and self.concurrency > 1:
            return self._time_concurrent(frame_wh, seconds)
        n, h, w = self.input_shape(frame_wh)
        runner = self.runner_for((n, h, w))
        images = np.zeros((n, 3, h, w), self.spec.input_dtype)
        times_ms: list[float] = []
        runner.infer(images)
        started = time.perf_counter()
        while len(times_ms) < 3 or time.perf_counter() - started < seconds:
            before = time.perf_counter()
            runner.infer(images)
            times_ms.append((time.perf_counter() - before) * 1e3)
        return times_ms

    def time_parts(self, image: NDArray[np.uint8], *, seconds: float) -> dict[str, list[float]]:
        return {}

    def _time_concurrent(self, frame_wh: tuple[int, int], seconds: float) -> list[float]:
        """Each thread runs one pass after another, as in the pipeline, and records the end of each."""
        blank = np.zeros((frame_wh[1], frame_wh[0], 3), np.uint8)
        slots = range(self.concurrency)
        for slot in slots:
            self.prepare(slot, [blank] * self.batch)
        deadline = time.perf_counter() + seconds

        def passes(slot: int) -> list[float]:
            ends: list[float] = []
            while len(ends) < 4 or time.perf_counter() < deadline:
                self.infer_concurrent(slot)
                ends.append(time.perf_counter())
            return ends

        with ThreadPoolExecutor(self.concurrency) as threads:
            ends = sorted(end for found in threads.map(passes, slots) for end in found)
        # synchronous passes end in groups: average over as many ends as there are concurrent passes
        n = self.concurrency
        return [(later - end) * 1e3 / n for end, later in zip(ends, ends[n:], strict=False)]

    def close(self) -> None:
        self._slots = []
        self._on_close()

    def _of_each_frame(self, arrays: NDArray[np.float32]) -> NDArray[np.float32]:
        """(batch * T, ...) of one pass as (batch, T, ...), T 2 with flip."""
        return arrays.reshape(self.batch, self.options.images_per_frame, *arrays.shape[1:])

    def _in_dtype(self, buffers: _Slot) -> Images:
        if self.spec.input_dtype == "float32":
            return buffers.images
        if buffers.half is None or buffers.half.shape != buffers.images.shape:
            buffers.half = np.empty(buffers.images.shape, np.float16)
        np.copyto(buffers.half, buffers.images, casting="same_kind")
        return buffers.half


def people_in_frame(keypoints: NDArray[np.floating], scores: NDArray[np.floating], letterbox: Letterbox) -> People:
    """Convert decoded keypoints (P, K, 3) in input pixels to People in frame pixels; joints not found are (0, 0)."""
    found = keypoints[..., 2] > 0  # (P, K)
    xy_frame = np.where(found[..., None], letterbox.to_frame(keypoints[..., :2]), 0)
    return People(
        xy_frame.astype(np.float32),
        np.where(found, keypoints[..., 2], 0).astype(np.float32),
        np.asarray(scores, np.float32),
    )
