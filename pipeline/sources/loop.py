"""Loop: repeats recorded sources without end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from core.errors import SourceError
from pipeline.sources.base import Source
from pipeline.types import Frame

DEFAULT_INTERVAL_S = 0.04  # between two rounds of a source that has a single frame


class Loop(Source):
    """Opens and plays the source of `open_again` until `interrupt`. Index and time of each source keep increasing."""

    def __init__(self, open_again: Callable[[], Source]) -> None:
        self._open_again = open_again
        self._current: Source | None = open_again()
        self._interrupted = False
        self.name, self.frame_wh = self._current.name, self._current.frame_wh
        self._parts = self._current.parts

    @property
    def parts(self) -> tuple[str, ...]:
        return self._parts

    def __iter__(self) -> Iterator[Frame]:
        after: dict[str, tuple[int, float]] = {}  # source -> first index and time of its next round
        while not self._interrupted:
            current = self._current if self._current is not None else self._open_again()
            self._current = current
            ended: dict[str, tuple[int, float, float]] = {}  # source -> last index, time and interval of this round
            with current:
                for frame in current:
                    index, time_s = after.get(frame.source, (0, 0.0))
                    _, last_s, interval_s = ended.get(frame.source, (0, frame.time_s, DEFAULT_INTERVAL_S))
                    interval_s = frame.time_s - last_s if frame.time_s > last_s else interval_s
                    ended[frame.source] = frame.index, frame.time_s, interval_s
                    yield replace(frame, index=frame.index + index, time_s=frame.time_s + time_s)
            self._current = None
            if not ended:
                raise SourceError(f"{self.name} holds no frame")
            for source, (last, last_s, interval_s) in ended.items():
                index, time_s = after.get(source, (0, 0.0))
                after[source] = index + last + 1, time_s + last_s + interval_s

    def interrupt(self) -> None:
        self._interrupted = True
        current = self._current
        if current is not None:
            current.interrupt()

    def close(self) -> None:
        if self._current is not None:
            self._current.close()
