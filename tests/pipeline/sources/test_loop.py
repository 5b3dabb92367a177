from __future__ import annotations

import itertools
import threading
import time

import pytest

from core.errors import SourceError
from pipeline.sources import open_source
from pipeline.sources.loop import Loop
from pipeline.sources.realtime import RealTime
from tests.pipeline.fakes import FakeSource, write_clip


def test_a_file_begins_again_and_its_index_and_time_go_on(tmp_path):
    path = write_clip(tmp_path / "a.mp4", 3)
    with open_source(str(path), loop=True) as source:
        assert source.frame_count is None and source.frame_wh == (64, 48) and source.parts == (str(path),)
        frames = list(itertools.islice(source, 8))
    assert [frame.index for frame in frames] == list(range(8))
    assert [round(frame.time_s, 3) for frame in frames] == [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]
    assert [round(frame.image[0, 0, 0] / 20) for frame in frames[3:6]] == [0, 1, 2]  # the pictures come again


def test_several_files_begin_again_and_each_counts_its_own_frames(tmp_path):
    paths = [write_clip(tmp_path / f"{name}.mp4", count) for name, count in (("a", 2), ("b", 3))]
    with open_source(*paths, loop=True) as source:
        frames = list(itertools.islice(source, 9))
    assert [(frame.source[-5], frame.index) for frame in frames] == [
        ("a", 0), ("a", 1), ("b", 0), ("b", 1), ("b", 2), ("a", 2), ("a", 3), ("b", 3), ("b", 4),
    ]  # fmt: skip


def test_at_its_own_speed_it_stays_there_over_the_rounds(tmp_path):
    paths = [write_clip(tmp_path / f"{name}.mp4", count) for name, count in (("a", 1), ("b", 4))]
    with RealTime(open_source(*paths, loop=True)) as source:
        start = time.monotonic()
        list(itertools.islice(source, 12))
    assert 0.6 < time.monotonic() - start < 1.5  # 0.3 s a round of b; without clocks of their own 0 or 2 s


def test_a_single_picture_goes_on_too(tmp_path):
    import cv2
    import numpy as np

    path = tmp_path / "a.png"
    cv2.imwrite(str(path), np.zeros((8, 8, 3), np.uint8))
    with open_source(path, loop=True) as source:
        frames = list(itertools.islice(source, 3))
    assert [(frame.index, round(frame.time_s, 2)) for frame in frames] == [(0, 0.0), (1, 0.04), (2, 0.08)]


def test_an_interrupt_ends_it_and_every_round_is_closed():
    opened: list[FakeSource] = []

    def open_again() -> FakeSource:
        opened.append(FakeSource(2))
        return opened[-1]

    source = Loop(open_again)
    found: list[int] = []
    reader = threading.Thread(target=lambda: found.extend(frame.index for frame in source))
    reader.start()
    while len(opened) < 4:
        time.sleep(0.001)
    source.interrupt()
    reader.join(5)
    source.close()
    assert not reader.is_alive() and found[:6] == [0, 1, 2, 3, 4, 5]
    assert all(one.closed for one in opened)


def test_what_holds_no_frame_is_an_error_and_no_endless_round():
    with pytest.raises(SourceError, match="holds no frame"):
        list(Loop(lambda: FakeSource(0)))


def test_a_live_source_is_not_repeated():
    with pytest.raises(ValueError, match="--loop repeats files, and rtsp://host/a is live"):
        open_source("rtsp://me:secret@host/a", loop=True)
