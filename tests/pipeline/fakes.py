"""A source, a step and clips whose every frame is known."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from core.spec import ModelSpec
from pipeline.sources import Source
from pipeline.types import Frame, People

Fault = Callable[[int], None]  # called with a frame's index; may raise


def no_fault(index: int) -> None:
    pass


def raising_at(bad: int, error: BaseException | None = None) -> Fault:
    def fault(index: int) -> None:
        if index == bad:
            raise error if error is not None else ZeroDivisionError(f"at {index}")

    return fault


class FakeSource(Source):
    """`count` frames of 8x6 pixels, the index in the first pixel; counts how often it was closed and interrupted."""

    def __init__(self, count: int, *, fault: Fault = no_fault, interval_s: float = 0.0, live: bool = False) -> None:
        self.name, self.count, self.fault, self.interval_s, self.live = "fake", count, fault, interval_s, live
        self.closed = 0
        self.given = 0

    def __iter__(self) -> Iterator[Frame]:
        for index in range(self.count):
            self.fault(index)
            time.sleep(self.interval_s)
            image = np.zeros((6, 8, 3), np.uint8)
            image[0, 0] = index % 256
            self.given += 1
            yield Frame(image, index, index / 10, time.monotonic(), self.name)
        self.fault(self.count)

    def close(self) -> None:
        self.closed += 1


class FakeStep:
    """Finds one person in each frame, at (index, 0); checks that no slot is written while it is in use."""

    engine, about, precision, device = "fake", "a fake", "fp32", None

    def __init__(
        self,
        *,
        prepare: Fault = no_fault,
        infer: Fault = no_fault,
        finish: Fault = no_fault,
        seconds: float = 0.0,
        concurrency: int = 1,
        batch: int = 1,
    ) -> None:
        """prepare, infer, finish: what goes wrong there. seconds: that a pass of the network takes."""
        self.concurrency, self.batch = concurrency, batch
        self.batches: list[int] = []  # frames of each slot that was prepared
        self.slots = 3 if concurrency == 1 else concurrency + 3
        self.spec = ModelSpec(name="fake")
        self.faults = {"prepare": prepare, "infer": infer, "finish": finish}
        self.seconds = seconds
        self.in_slot: list[list[int] | None] = [None] * self.slots
        self.most_in_flight = self.max_concurrent = 0
        self.passing: set[int] = set()
        self.closed = 0

    def prepare(self, slot: int, pictures: Sequence[Any]) -> None:
        assert self.in_slot[slot] is None, "a slot was given out twice"
        assert 1 <= len(pictures) <= self.batch
        assert len({picture.shape for picture in pictures}) == 1
        indices = [int(picture[0, 0, 0]) for picture in pictures]
        for index in indices:
            self.faults["prepare"](index)
        self.in_slot[slot] = indices
        self.batches.append(len(indices))
        self.most_in_flight = max(self.most_in_flight, sum(i is not None for i in self.in_slot))

    def infer(self, slot: int) -> None:
        indices = self.in_slot[slot]
        assert indices is not None
        for index in indices:
            self.faults["infer"](index)
        time.sleep(self.seconds)

    def infer_concurrent(self, slot: int) -> None:
        assert self.concurrency > 1
        self.passing.add(slot)
        self.max_concurrent = max(self.max_concurrent, len(self.passing))
        try:
            self.infer(slot)
        finally:
            self.passing.remove(slot)

    def finish(self, slot: int) -> list[People]:
        assert slot not in self.passing
        indices, self.in_slot[slot] = self.in_slot[slot], None
        assert indices is not None
        for index in indices:
            self.faults["finish"](index)
        return [person_at(index, 0) for index in indices]

    def drain(self) -> None:
        self.in_slot = [None] * self.slots

    def input_shape(self, frame_wh: tuple[int, int]) -> tuple[int, int, int]:
        return self.batch, 64, 64

    def warm_up(self, frame_wh: tuple[int, int]) -> None:
        pass

    def time_engine(self, frame_wh: tuple[int, int], *, seconds: float, concurrent: bool = False) -> list[float]:
        return [1e3 * self.seconds] * 3

    def time_parts(self, image: NDArray[np.uint8], *, seconds: float) -> dict[str, list[float]]:
        return {}

    def close(self) -> None:
        self.closed += 1


def person_at(x: float, y: float, *, joints: int = 17) -> People:
    keypoints = np.full((1, joints, 2), (x, y), np.float32)
    return People(keypoints, np.full((1, joints), 0.9, np.float32), np.array([0.9], np.float32))


def noise(i: int) -> np.ndarray:
    """Noise, which does not compress, so that a truncated file loses frames."""
    return np.random.default_rng(i).integers(0, 255, (48, 64, 3), dtype=np.uint8)


def write_clip(
    path: Path,
    count: int = 10,
    *,
    wh: tuple[int, int] = (64, 48),
    pts: list[int] | None = None,
    time_base: Fraction = Fraction(1, 10),
    options: dict[str, str] | None = None,
    rotation: int = 0,
    matrix: tuple[int, int, int, int] | None = None,
    picture: Callable[[int], Any] | None = None,
    codec: str = "libx264",
) -> Path:
    """A video whose frame i is grey level 20 * i, or `picture(i)` (H, W, 3) uint8 BGR.

    matrix: (a, b, c, d) of the display matrix: (x, y) is shown at (a * x + c * y, b * x + d * y), shifted into view.
    """
    with av.open(str(path), "w", options=options or {}) as container:
        stream: Any = container.add_stream(codec, options={"crf": "10"} if codec == "libx264" else {})
        stream.width, stream.height = wh
        stream.pix_fmt = "rgb8" if codec == "gif" else "yuv420p"
        stream.codec_context.time_base = stream.time_base = time_base
        if rotation:
            stream.set_display_rotation(rotation)
        if matrix is not None:
            a, b, c, d = (value << 16 for value in matrix)
            stream.set_display_matrix([a, b, 0, c, d, 0, 0, 0, 1 << 30])
        for i in range(count):
            image = picture(i) if picture is not None else np.full((wh[1], wh[0], 3), 20 * i % 256, np.uint8)
            frame = av.VideoFrame.from_ndarray(image, "bgr24")
            frame.pts, frame.time_base = (pts[i] if pts is not None else i), time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path
