"""Reconnecting: a source that fails is opened again; indices and times continue."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest

from core.errors import SourceError
from pipeline.sources import Source
from pipeline.sources.reconnect import Reconnecting
from pipeline.types import Frame


class Once(Source):
    """Gives `count` frames of one size; then the connection is lost, or the server ends it."""

    live = True

    def __init__(self, count: int, wh: tuple[int, int] = (8, 6), *, lost: bool = True) -> None:
        self.name, self.count, self.frame_wh, self.lost, self.closed = "camera", count, wh, lost, False

    def __iter__(self) -> Iterator[Frame]:
        for index in range(self.count):
            assert self.frame_wh is not None
            image = np.zeros((self.frame_wh[1], self.frame_wh[0], 3), np.uint8)
            yield Frame(image, index, index / 25, time.monotonic(), self.name)
        if self.lost:
            raise SourceError("camera is gone")

    def close(self) -> None:
        self.closed = True


class Openings:
    """The result of each attempt to open: a source, or None if nobody answers."""

    def __init__(self, *found: Once | None) -> None:
        self.found = list(found)
        self.at: list[float] = []

    def __call__(self) -> Source:
        self.at.append(time.monotonic())
        source = self.found.pop(0) if self.found else None
        if source is None:
            raise SourceError("nobody answers")
        return source


def first_frames(source: Reconnecting, count: int) -> list[Frame]:
    frames = []
    with source:
        for frame in source:
            frames.append(frame)
            if len(frames) == count:
                source.interrupt()
    return frames


@pytest.mark.parametrize("lost", [True, False])
def test_it_goes_on_where_it_stopped(lost):
    parts = Once(3, lost=lost), Once(2, (10, 6), lost=lost), Once(4)
    seen: list[str | None] = []
    openings = Openings(parts[0], None, parts[1], None, None, parts[2])
    source = Reconnecting("camera", openings, on_change=seen.append, first_pause_s=0.01)
    frames = first_frames(source, 9)
    assert [frame.index for frame in frames] == list(range(9))
    assert all(a.time_s <= b.time_s for a, b in pairwise(frames))
    assert [frame.wh for frame in frames] == [(8, 6)] * 3 + [(10, 6)] * 2 + [(8, 6)] * 4
    assert all(part.closed for part in parts)
    why = "camera is gone" if lost else "camera has ended"
    assert seen == [why, "nobody answers", None, why, "nobody answers", "nobody answers", None]


def test_pauses_grow_with_jitter_and_a_frame_resets_them():
    openings = Openings(Once(1), None, None, Once(1), Once(1))
    first_frames(Reconnecting("camera", openings, first_pause_s=0.08), 3)
    pauses = np.diff(openings.at)
    for pause, longest in zip(pauses, [0.08, 0.16, 0.32, 0.08], strict=True):
        assert longest / 2 <= pause < longest + 0.1


def test_one_that_cannot_be_opened_at_the_start_is_an_error_unless_it_is_waited_for():
    with pytest.raises(SourceError, match="nobody answers"):
        Reconnecting("camera", Openings())
    source = Reconnecting("camera", Openings(None, None, Once(2)), wait_for_first=True, first_pause_s=0.01)
    assert len(first_frames(source, 2)) == 2


def test_an_interrupt_ends_a_pause_at_once():
    source = Reconnecting("camera", Openings(None), wait_for_first=True, first_pause_s=100)
    thread = threading.Thread(target=lambda: list(source))
    thread.start()
    time.sleep(0.05)
    source.interrupt()
    thread.join(2)
    assert not thread.is_alive()
