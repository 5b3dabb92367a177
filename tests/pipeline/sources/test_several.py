"""Several live sources: the newest frame of each, no source is starved, and none stops another."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from core.errors import SourceError
from pipeline import PosePipeline
from pipeline.sources import Source
from pipeline.sources.reconnect import Reconnecting
from pipeline.sources.several import Several
from pipeline.types import Frame
from tests.pipeline.fakes import FakeStep


@pytest.fixture(autouse=True)
def _no_thread_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


class Clock(Source):
    """A frame every `interval_s` until `count`, or until it is interrupted; then `end` is called."""

    live = True

    def __init__(
        self,
        name: str,
        count: int = 1_000_000,
        *,
        interval_s: float = 0.002,
        wh: tuple[int, int] = (8, 6),
        end: Callable[[], None] = lambda: None,
    ) -> None:
        self.name, self.count, self.interval_s, self.frame_wh, self.end = name, count, interval_s, wh, end
        self.stop = threading.Event()
        self.closed = 0

    def __iter__(self) -> Iterator[Frame]:
        assert self.frame_wh is not None
        for index in range(self.count):
            if self.stop.wait(self.interval_s):
                return
            image = np.zeros((self.frame_wh[1], self.frame_wh[0], 3), np.uint8)
            image[0, 0] = index % 256
            yield Frame(image, index, index * self.interval_s, time.monotonic(), self.name)
        self.end()

    def interrupt(self) -> None:
        self.stop.set()

    def close(self) -> None:
        self.closed += 1


def failing(message: str = "unplugged") -> Callable[[], None]:
    def end() -> None:
        raise SourceError(message)

    return end


def taken(source: Source, limit: int, **step: object) -> Counter[str]:
    """The number of frames of each source in a run of `limit` frames; checks that their indices increase."""
    seen: Counter[str] = Counter()
    last: dict[str, int] = {}
    pose = PosePipeline(step=FakeStep(seconds=0.004, **step))  # type: ignore[arg-type]
    for result in pose.run(source, limit=limit):
        frame = result.frame
        assert result.people.keypoints[0, 0, 0] == frame.index % 256
        assert frame.index > last.get(frame.source, -1)
        last[frame.source] = frame.index
        seen[frame.source] += 1
    return seen


@pytest.mark.parametrize("batch", [1, 2, 4])
def test_sources_share_evenly_and_old_frames_are_dropped(batch):
    """Four sources, each of which is faster than the step."""
    lanes = [Clock(f"camera {n}") for n in range(4)]
    source = Several(lanes)
    seen = taken(source, 80, batch=batch)
    assert set(seen) == set(source.parts)
    assert min(seen.values()) >= 0.7 * 20
    assert source.dropped > 0
    states = source.states()
    assert sum(state.frames for state in states) >= 80
    assert all(lane.closed for lane in lanes)


def test_a_slow_source_is_served_whenever_it_has_a_frame():
    seen = taken(Several([Clock("fast", interval_s=0.001), Clock("slow", 10, interval_s=0.03)]), 150)
    assert seen["slow"] >= 8


@pytest.mark.parametrize("fails", [False, True])
def test_a_source_that_ends_or_dies_stops_nobody(fails):
    """The error is raised when all sources have ended."""
    source = Several([Clock("short", 3, end=failing() if fails else lambda: None), Clock("long", 60)])
    seen = Counter[str]()
    error = None
    try:
        for result in PosePipeline(step=FakeStep()).run(source):
            seen[result.frame.source] += 1
    except SourceError as caught:
        error = str(caught)
    assert seen["long"] > 20
    assert 1 <= seen["short"] <= 3
    assert error == ("unplugged" if fails else None)
    assert [state.state for state in source.states()] == ["failed" if fails else "ended", "ended"]


def test_a_stalled_source_costs_the_others_nothing():
    """It opens and then sends nothing until it is interrupted."""
    stalled, lively = Clock("stalled", interval_s=1000.0), Clock("lively", interval_s=0.001)
    started = time.monotonic()
    assert taken(Several([stalled, lively]), 50) == {"lively": 50}
    assert time.monotonic() - started < 5


def test_a_batch_holds_one_size():
    sources = [Clock("a"), Clock("b"), Clock("wide", wh=(12, 6))]
    step = FakeStep(batch=3, seconds=0.004)
    for result in PosePipeline(step=step).run(Several(sources), limit=60):
        assert result.frame.wh == ((12, 6) if result.frame.source == "wide" else (8, 6))
    assert max(step.batches) == 2


def test_what_nobody_foresaw_in_a_source_reaches_the_caller_once():
    def broken() -> None:
        raise ZeroDivisionError("at once")

    results = PosePipeline(step=FakeStep()).run(Several([Clock("a", 2, end=broken), Clock("b", 2)]))
    with pytest.raises(Exception, match="at once"):
        list(results)
    assert list(results) == []


def test_a_caller_who_leaves_early_leaves_nothing():
    sources = [Clock("a"), Clock("b", interval_s=1000.0)]
    results = PosePipeline(step=FakeStep()).run(Several(sources))
    next(results)
    results.close()
    assert all(source.closed for source in sources)


def test_the_same_source_twice_is_refused():
    with pytest.raises(ValueError, match="camera is given twice; live sources must differ"):
        Several([Clock("camera"), Clock("camera")])


def test_a_listener_hears_what_becomes_of_a_source():
    heard = []
    opened = iter([Clock("camera", 2, end=failing()), Clock("camera", 2)])

    def open_again() -> Source:
        return next(opened, None) or Clock("camera", 1_000_000)

    source = Several([Reconnecting("camera", open_again, first_pause_s=0.01), Clock("other")])
    source.on_change = lambda state: heard.append((state.name, state.state, state.text))
    seen = Counter(result.frame.source for result in PosePipeline(step=FakeStep()).run(source, limit=200))
    assert seen["camera"] > 4
    assert heard[:2] == [("camera", "reconnecting", "unplugged"), ("camera", "live", "")]
