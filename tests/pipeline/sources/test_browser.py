from __future__ import annotations

import threading
import time

import cv2
import numpy as np
import pytest

from pipeline.sources import open_source
from pipeline.sources.browser import MAX_AGE_S, BrowserSource


def picture(grey: int) -> bytes:
    return cv2.imencode(".jpg", np.full((48, 64, 3), grey, np.uint8))[1].tobytes()


class Answers(list):
    def __call__(self, wrong: str | None) -> None:
        self.append(wrong)


def test_pictures_become_frames_that_count_up():
    source, taken = BrowserSource(), Answers()
    frames = iter(source)
    for index, grey in enumerate((40, 200)):
        at = time.monotonic() - 0.01
        source.offer(picture(grey), at, taken)
        frame = next(frames)
        assert (frame.index, frame.source, frame.wh, frame.captured_at) == (index, "browser", (64, 48), at)
        assert abs(int(frame.image[10, 10, 0]) - grey) <= 2 and frame.time_s >= 0
    assert taken == [None, None] and source.live


def test_the_newest_picture_replaces_one_that_waits():
    source, taken = BrowserSource(), Answers()
    for grey in (10, 20, 240):
        source.offer(picture(grey), None, taken)
    assert next(iter(source)).image[10, 10, 0] > 230
    assert (source.dropped, taken) == (2, [None, None, None])


@pytest.mark.parametrize(("claimed", "low"), [(1e12, 0.0), (-1e12, MAX_AGE_S), (None, 0.0)])
def test_a_time_that_cannot_be_is_not_believed(claimed, low):
    source = BrowserSource()
    source.offer(picture(9), claimed, Answers())
    age = time.monotonic() - next(iter(source)).captured_at
    assert low <= age < low + 1


def test_a_broken_picture_is_told_and_passed_over():
    source, taken = BrowserSource(), Answers()
    found: list[int] = []
    reader = threading.Thread(target=lambda: found.extend(frame.index for frame in source))
    reader.start()
    source.offer(b"\xff\xd8\xff", None, taken)
    while not taken:
        time.sleep(0.001)
    source.offer(picture(9), None, taken)
    while not found:
        time.sleep(0.001)
    source.interrupt()
    reader.join(5)
    assert found == [0] and taken == ["a picture that cannot be decoded", None] and not reader.is_alive()


def test_what_a_visitor_left_behind_is_not_shown():
    source = BrowserSource()
    source.offer(picture(9), None, Answers())
    source.visitor_left()
    source.offer(picture(200), None, Answers())
    assert next(iter(source)).image[10, 10, 0] > 190


def test_an_interrupt_ends_the_wait_for_a_visitor():
    source = BrowserSource()
    reader = threading.Thread(target=lambda: list(source))
    reader.start()
    time.sleep(0.05)
    source.interrupt()
    reader.join(5)
    assert not reader.is_alive()


def test_without_a_page_there_is_no_visitor():
    with pytest.raises(ValueError, match="add --web 8000"):
        open_source("browser")
    source = BrowserSource()
    assert open_source("browser", browser=source) is source
    with open_source("browser", "97", browser=source, reconnect=True) as both:
        assert both.parts == ("browser", "97")
