"""Several: runs live sources at the same time and gives the newest frames in batches."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from typing import Literal

from core.errors import describe
from pipeline.sources.base import Source
from pipeline.sources.reconnect import Reconnecting
from pipeline.types import Frame

FILL_S = 0.03  # longest wait for a full batch, since cameras may pause for half a second around key frames

State = Literal["starting", "live", "reconnecting", "ended", "failed"]


@dataclass(frozen=True)
class SourceState:
    """The state of a source. frames: number of frames used; dropped: replaced by a newer one before they were used.

    age_s: time since its newest frame was captured; None before the first. text: why it is reconnecting or has failed.
    """

    name: str
    state: State
    frames: int
    dropped: int
    age_s: float | None
    text: str = ""


@dataclass(eq=False)
class _Lane:
    """A source with its thread and its newest frame. The condition of `Several` guards all fields."""

    source: Source
    thread: threading.Thread | None = None
    state: State = "starting"
    text: str = ""
    waiting: Frame | None = None
    newest_at: float | None = None
    served_at: float = 0.0
    frames: int = 0
    dropped: int = 0
    error: Exception | None = None

    def public(self) -> SourceState:
        age_s = None if self.newest_at is None else max(0.0, time.monotonic() - self.newest_at)
        return SourceState(self.source.name, self.state, self.frames, self.dropped, age_s, self.text)


class Several(Source):
    """Runs live sources at the same time, and closes them. A source that stalls or fails does not affect the others.

    Of the sources with an unread frame, the one served longest ago comes first. When all sources have ended, the error
    of the first failed one is raised.
    on_change: called with the new state whenever a source's state changes, from the source's thread.
    """

    live = True
    keeps_newest = True

    def __init__(self, sources: Sequence[Source]) -> None:
        names = [source.name for source in sources]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"{twice} is given twice; live sources must differ")
        self.name = f"{len(sources)} sources"
        self.frame_wh = next((source.frame_wh for source in sources if source.frame_wh is not None), None)
        self._lanes = [_Lane(source) for source in sources]
        self._changed = threading.Condition()
        self._interrupted = False
        self.on_change: Callable[[SourceState], None] = lambda state: None
        for lane in self._lanes:
            if isinstance(lane.source, Reconnecting):
                lane.source.on_change = partial(self._set_reconnecting, lane)

    @property
    def parts(self) -> tuple[str, ...]:
        return tuple(lane.source.name for lane in self._lanes)

    @property
    def dropped(self) -> int:  # type: ignore[override]  # counted by the lanes
        return sum(lane.dropped for lane in self._lanes)

    def states(self) -> list[SourceState]:
        """The state of each source, in the given order. May be called from any thread."""
        with self._changed:
            return [lane.public() for lane in self._lanes]

    def __iter__(self) -> Iterator[Frame]:
        for (frame,) in self.batches(1):
            yield frame

    def batches(self, size: int) -> Iterator[list[Frame]]:
        """The newest frames of up to `size` sources, all of one shape; waits at most 30 ms to fill a batch."""
        self._start()
        while (batch := self._next(size)) is not None:
            yield batch
        if not self._interrupted:
            for lane in self._lanes:
                if lane.error is not None:
                    raise lane.error

    def interrupt(self) -> None:
        with self._changed:
            self._interrupted = True
            self._changed.notify_all()
        for lane in self._lanes:
            lane.source.interrupt()

    def close(self) -> None:
        self.interrupt()
        for lane in self._lanes:
            if lane.thread is not None:
                lane.thread.join()
                lane.thread = None
            lane.source.close()

    def _start(self) -> None:
        for number, lane in enumerate(self._lanes):
            lane.thread = threading.Thread(target=self._read, args=(lane,), name=f"pose-source-{number}", daemon=True)
            lane.thread.start()

    def _read(self, lane: _Lane) -> None:
        """Runs in the thread of one source: its newest frame replaces an unread one."""
        error: Exception | None = None
        try:
            for frame in lane.source:
                with self._changed:
                    if self._interrupted:
                        break
                    lane.dropped += lane.waiting is not None
                    lane.waiting, lane.newest_at, lane.state, lane.text = frame, frame.captured_at, "live", ""
                    self._changed.notify_all()
        except Exception as caught:  # raised by `batches` when all have ended
            error = caught
        with self._changed:
            lane.error = error
            lane.state, lane.text = ("ended", "") if error is None else ("failed", describe(error))
            self._changed.notify_all()
            state = lane.public()
        if not self._interrupted:
            self.on_change(state)

    def _next(self, size: int) -> list[Frame] | None:
        """Wait for a batch; None when all sources have ended, or after `interrupt`."""
        with self._changed:
            deadline: float | None = None
            while not self._interrupted:
                ready = sorted((lane for lane in self._lanes if lane.waiting is not None), key=attrgetter("served_at"))
                running = [lane for lane in self._lanes if lane.state not in ("ended", "failed")]
                now = time.monotonic()
                if ready:
                    deadline = now + FILL_S if deadline is None else deadline
                    awaited = [lane for lane in running if lane.waiting is None and lane.state != "reconnecting"]
                    if len(ready) >= size or not awaited or now >= deadline:
                        return self._take(ready, size, now)
                    self._changed.wait(deadline - now)
                elif running:
                    self._changed.wait()
                else:
                    return None
            return None

    def _take(self, ready: list[_Lane], size: int, now: float) -> list[Frame]:
        batch: list[Frame] = []
        for lane in ready:
            frame = lane.waiting
            assert frame is not None
            if len(batch) < size and (not batch or frame.layout == batch[0].layout):
                batch.append(frame)
                lane.waiting = None
                lane.served_at = now
                lane.frames += 1
        return batch

    def _set_reconnecting(self, lane: _Lane, reason: str | None) -> None:
        """reason: None when the source is back."""
        with self._changed:
            lane.state, lane.text = ("live", "") if reason is None else ("reconnecting", reason)
            self._changed.notify_all()
            state = lane.public()
        self.on_change(state)
