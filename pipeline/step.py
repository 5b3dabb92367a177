"""FrameStep: what happens between a frame and its people, in three calls; HostStep does it in host memory.

The pipeline knows slots and order; a step knows buffers. A step on a device keeps its buffers per slot in the same way:
`prepare` fills pinned memory, `infer` queues the device's work, `finish` waits for the slot's event.
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
from engine.runner import Heads, Images, ParallelRunner, Runner
from kernels.options import DecodeOptions
from pipeline.letterbox import Letterbox
from pipeline.types import People

SLOTS = 3  # one being prepared, one in the engine, one being grouped


class FrameStep(Protocol):
    """Slots 0 .. slots - 1 hold up to `batch` frames of one size each; the same slot is never in two calls at once.

    Each of the three calls comes from a thread of its own, in frame order. Any slot's frames may have another size than
    those before: the slot they are in is rebuilt, the other slots keep what they hold.
    """

    spec: ModelSpec
    engine: str  # as in `--stats`
    about: str  # one line: what runs, and why it was picked
    slots: int
    batch: int  # frames that one pass takes; fewer are filled up with what the slot held before
    at_once: int  # slots whose passes, by `infer_beside`, are faster at the same time than one after another; else 1

    @property
    def precision(self) -> str:
        """Of the network's arithmetic: "fp32", "fp16" or "bf16"."""
        ...

    def prepare(self, slot: int, images: Sequence[NDArray[np.uint8]]) -> None:
        """Take 1 to `batch` frames, all (H, W, 3) uint8 BGR, into the slot: resize, normalise. They may change then."""

    def infer(self, slot: int) -> None:
        """Run the network on the slot, or queue it."""

    def infer_beside(self, slot: int) -> None:
        """As `infer`, for at most `at_once` slots at the same time, each from a thread of its own."""

    def finish(self, slot: int) -> list[People]:
        """The people of each of the slot's frames, in frame pixels; waits for them. The slot is free afterwards."""
        ...

    def settle(self) -> None:
        """A run is over and its threads are joined: wait for what is still in the slots, and free them all."""

    def input_shape(self, frame_wh: tuple[int, int]) -> tuple[int, int, int]:
        """(N, H, W) of the network's input for frames of this size."""
        ...

    def warm_up(self, frame_wh: tuple[int, int]) -> None:
        """Compile and allocate whatever the first frame of this size would wait for."""

    def time_engine(self, frame_wh: tuple[int, int], *, seconds: float, beside: bool = False) -> list[float]:
        """Milliseconds of single passes of the engine alone, at least three, repeated for about `seconds`.

        beside: of passes side by side, `at_once` of them: the time from one's end to the next one's.
        """
        ...

    def time_parts(self, image: NDArray[np.uint8], *, seconds: float) -> dict[str, list[float]]:
        """Milliseconds that the device spends on each part of this frame; empty where the stages say it all."""
        ...

    def close(self) -> None:
        """Release everything. May be called twice."""


@dataclass
class _Slot:
    """The buffers of one frame on its way; they live as long as the input shape stays the same."""

    letterbox: Letterbox | None = None
    frames: int = 0  # of the batch, those that were prepared
    images: NDArray[np.float32] = field(default_factory=lambda: np.empty((0, 3, 0, 0), np.float32))  # (N, 3, H, W)
    heatmaps: NDArray[np.float32] = field(default_factory=lambda: np.empty((0, 0, 0, 0), np.float32))
    tags: NDArray[np.float32] = field(default_factory=lambda: np.empty((0, 0, 0, 0), np.float32))
    half: NDArray[np.float16] | None = None  # `images` for a float16 model


class HostStep:
    """Preprocess and decode by `kernels.cpu`, the network by any Runner.

    runner_for: gives the Runner for an input (N, H, W); called when the shape changes, so it may build and keep plans.
        The step does not close what it gives; `close` runs `on_close`.
    beside: the runner of passes side by side, if one can do that.
    size: short side instead of the model's own; flip: average with the mirrored frame, twice the images.
    batch: frames of one pass.
    """

    def __init__(
        self,
        runner_for: Callable[[tuple[int, int, int]], Runner],
        spec: ModelSpec,
        *,
        engine: str,
        about: str = "",
        options: DecodeOptions,
        size: int | None = None,
        flip: bool = False,
        batch: int = 1,
        beside: ParallelRunner | None = None,
        on_close: Callable[[], None] = lambda: None,
    ) -> None:
        self.spec = spec
        self.engine = engine
        self.at_once = 1 if beside is None else beside.at_once
        self.slots = SLOTS if self.at_once == 1 else self.at_once + SLOTS
        self._beside = beside
        self.about = about
        self.runner_for = runner_for
        self._options = options
        self._size = size
        self.batch = batch
        self._passes = 2 if flip else 1  # images of a frame: itself, and mirrored
        self._on_close = on_close
        self._slots: Sequence[_Slot] = [_Slot() for _ in range(self.slots)]

    @property
    def precision(self) -> str:
        return self.spec.precision if self._beside is None else self._beside.precision

    def prepare(self, slot: int, images: Sequence[NDArray[np.uint8]]) -> None:
        from kernels.cpu import preprocess

        kept = self._slots[slot]
        letterbox = Letterbox.for_model((images[0].shape[1], images[0].shape[0]), self.spec, self._size)
        if kept.letterbox is None or kept.letterbox.input_hw != letterbox.input_hw:
            kept.images = np.zeros((self.batch * self._passes, 3, *letterbox.input_hw), np.float32)
        kept.letterbox, kept.frames = letterbox, len(images)
        for image, (upright, *mirrored) in zip(images, self._of_each_frame(kept.images), strict=False):
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
        kept = self._slots[slot]
        images, into = self._prepared(kept)
        n, _, h, w = images.shape
        heads = self.runner_for((n, h, w)).infer(images)
        # The runner's outputs hold until its next call, which comes before this slot is decoded: copy.
        np.copyto(into.heatmaps, heads.heatmaps)
        np.copyto(into.tags, heads.tags)

    def infer_beside(self, slot: int) -> None:
        assert self._beside is not None, "at_once is 1"
        self._beside.infer_into(*self._prepared(self._slots[slot]))

    def _prepared(self, kept: _Slot) -> tuple[Images, Heads]:
        """The images of the frames that were prepared, and where the network's outputs for them belong."""
        n, _, h, w = kept.images.shape
        if kept.heatmaps.shape != (n, self.spec.num_joints, h // 2, w // 2):
            kept.heatmaps = np.empty((n, self.spec.num_joints, h // 2, w // 2), np.float32)
            kept.tags = np.empty((n, self.spec.tag_channels, h // 4, w // 4), np.float32)
        there = kept.frames * self._passes
        return self._in_dtype(kept)[:there], Heads(kept.heatmaps[:there], kept.tags[:there])

    def finish(self, slot: int) -> list[People]:
        from kernels.cpu import decode

        kept = self._slots[slot]
        assert kept.letterbox is not None
        maps = zip(self._of_each_frame(kept.heatmaps), self._of_each_frame(kept.tags), strict=True)
        decoded = (decode(heatmaps, tags, self._options) for heatmaps, tags in itertools.islice(maps, kept.frames))
        return [people_in_frame(keypoints, scores, kept.letterbox) for keypoints, scores in decoded]

    def settle(self) -> None:
        """Nothing to wait for: no call leaves work behind."""

    def input_shape(self, frame_wh: tuple[int, int]) -> tuple[int, int, int]:
        return self.batch * self._passes, *Letterbox.for_model(frame_wh, self.spec, self._size).input_hw

    def warm_up(self, frame_wh: tuple[int, int]) -> None:
        blank = np.zeros((frame_wh[1], frame_wh[0], 3), np.uint8)
        for slot in range(self.slots):
            self.prepare(slot, [blank] * self.batch)
            self.infer(slot)
            if self.at_once > 1:
                self.infer_beside(slot)
            self.finish(slot)

    def time_engine(self, frame_wh: tuple[int, int], *, seconds: float, beside: bool = False) -> list[float]:
        if beside and self.at_once > 1:
            return self._time_beside(frame_wh, seconds)
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

    def _time_beside(self, frame_wh: tuple[int, int], seconds: float) -> list[float]:
        """Every thread runs one pass after another, as the pipeline's do; the end of each pass is noted."""
        blank = np.zeros((frame_wh[1], frame_wh[0], 3), np.uint8)
        slots = range(self.at_once)
        for slot in slots:
            self.prepare(slot, [blank] * self.batch)
        deadline = time.perf_counter() + seconds

        def passes(slot: int) -> list[float]:
            ends: list[float] = []
            while len(ends) < 4 or time.perf_counter() < deadline:
                self.infer_beside(slot)
                ends.append(time.perf_counter())
            return ends

        with ThreadPoolExecutor(self.at_once) as threads:
            ends = sorted(end for found in threads.map(passes, slots) for end in found)
        # Ends come in bunches where the passes keep step: over as many as run at once, the time is even.
        n = self.at_once
        return [(later - end) * 1e3 / n for end, later in zip(ends, ends[n:], strict=False)]

    def close(self) -> None:
        self._slots = []
        self._on_close()

    def _of_each_frame(self, arrays: NDArray[np.float32]) -> NDArray[np.float32]:
        """(batch * T, ...) of one pass as (batch, T, ...), T 2 with flip."""
        return arrays.reshape(self.batch, self._passes, *arrays.shape[1:])

    def _in_dtype(self, kept: _Slot) -> Images:
        if self.spec.input_dtype == "float32":
            return kept.images
        if kept.half is None or kept.half.shape != kept.images.shape:
            kept.half = np.empty(kept.images.shape, np.float16)
        np.copyto(kept.half, kept.images, casting="same_kind")
        return kept.half


def people_in_frame(keypoints: NDArray[np.floating], scores: NDArray[np.floating], letterbox: Letterbox) -> People:
    """Decoded keypoints (P, K, 3) in input pixels -> People in frame pixels; joints not found stay at (0, 0)."""
    found = keypoints[..., 2] > 0  # (P, K)
    xy_frame = np.where(found[..., None], letterbox.to_frame(keypoints[..., :2]), 0)
    return People(
        xy_frame.astype(np.float32),
        np.where(found, keypoints[..., 2], 0).astype(np.float32),
        np.asarray(scores, np.float32),
    )
