"""RealTime: plays a recorded source at its own speed, like a camera."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace

from pipeline.sources.base import Source
from pipeline.types import Frame


class RealTime(Source):
    """Plays a recorded source, or one that comes in pieces, at its own speed, like a camera."""

    live = True

    def __init__(self, source: Source) -> None:
        self._source = source
        self._interrupted = threading.Event()
        self.name, self.frame_count, self.frame_wh = source.name, source.frame_count, source.frame_wh

    @property
    def parts(self) -> tuple[str, ...]:
        return self._source.parts

    def __iter__(self) -> Iterator[Frame]:
        started, before = 0.0, ""
        for frame in self._source:
            if frame.index == 0 or frame.source != before:  # times of each source of a chain start at 0
                started, before = time.monotonic() - frame.time_s, frame.source
            if self._interrupted.wait(max(0.0, started + frame.time_s - time.monotonic())):
                return
            yield replace(frame, captured_at=time.monotonic())

    def interrupt(self) -> None:
        self._interrupted.set()
        self._source.interrupt()

    def close(self) -> None:
        self._source.close()
