"""The frames, people and states that the server sends to viewers."""

from __future__ import annotations

import time
from contextlib import ExitStack

import cv2
import numpy as np
import pytest

from pipeline.sinks.web import tiles
from tests.pipeline.fakes import person_at
from tests.pipeline.sinks.web.serving import (
    Received,
    connect_viewer,
    eventually,
    page,
    result,
    write,
)


def test_a_viewer_gets_the_newest_picture_and_its_people():
    with page() as sink:
        for index in range(5):
            write(sink, result(index, people=person_at(20, 30)))
        with connect_viewer(sink) as connection:
            seen = Received(connection)
            hello = seen.next("hello")
            assert hello["skeletons"]["17"]["edges"] and len(hello["skeletons"]["17"]["joint_colors"]) == 17
            frame = seen.next("frame")
            assert (frame["frame"], frame["name"], frame["wh"], frame["dropped"]) == (4, "a.mp4", [64, 48], 0)
            assert frame["people"][0]["keypoints"][-3:] == [200, 300, 900]
            assert frame["captured_ms"] == pytest.approx(time.monotonic() * 1e3, abs=5e3)
            image = cv2.imdecode(np.frombuffer(frame["jpeg"], np.uint8), cv2.IMREAD_COLOR)
            assert image is not None and image.shape == (48, 64, 3) and abs(int(image[5, 5, 0]) - 44) <= 2


def test_a_large_picture_is_sent_smaller_and_its_people_are_not():
    with page() as sink, connect_viewer(sink) as connection:
        write(sink, result(0, wh=(2560, 720), people=person_at(2000, 30)))
        frame = Received(connection).next("frame")
        image = cv2.imdecode(np.frombuffer(frame["jpeg"], np.uint8), cv2.IMREAD_COLOR)
        assert image is not None and image.shape == (360, 1280, 3)
        assert frame["wh"] == [2560, 720] and frame["people"][0]["keypoints"][0] == 20_000


def test_two_frames_are_on_their_way_at_most_and_then_the_newest_comes():
    with page() as sink, connect_viewer(sink) as connection:
        seen = Received(connection)
        seen.next("hello")
        write(sink, result(0))
        first = seen.next("frame")
        write(sink, result(1))
        seen.next("frame")
        for index in range(2, 8):
            write(sink, result(index))
        assert seen.frames(for_s=0.3) == []
        seen.acknowledge(first)
        assert seen.next("frame")["frame"] == 7
        assert seen.frames(for_s=0.2) == []


def test_nothing_is_encoded_for_nobody_and_once_for_many(monkeypatch):
    encoded = []
    encode = tiles.TileFrame.encode

    def counted(shot: tiles.TileFrame, max_side: int) -> bytes:
        encoded.append(shot.seq)
        return encode(shot, max_side)

    monkeypatch.setattr(tiles.TileFrame, "encode", counted)
    with page() as sink:
        for index in range(5):
            write(sink, result(index))
        time.sleep(0.1)
        assert encoded == []
        with ExitStack() as stack:
            seen = [Received(stack.enter_context(connect_viewer(sink))) for _ in range(4)]
            assert {one.next("frame")["seq"] for one in seen} == {5}
            write(sink, result(5))
            assert {one.next("frame")["seq"] for one in seen} == {6}
        assert encoded.count(6) == 1 and encoded.count(5) == 1


def test_a_viewer_that_stalls_costs_the_others_nothing():
    with page() as sink, connect_viewer(sink) as stalled, connect_viewer(sink) as lively:
        seen = Received(lively)
        times = []
        for index in range(60):
            start = time.monotonic()
            write(sink, result(index, wh=(320, 240)))
            times.append(time.monotonic() - start)
            frame = seen.next("frame")
            assert frame["frame"] == index
            seen.acknowledge(frame)
        assert np.median(times) < 0.005  # writing waits for nobody
        assert len(Received(stalled).frames(for_s=0.2)) == 2


def test_sources_side_by_side_have_their_own_numbers_drops_and_states():
    with page(("left", "right"), side_by_side=True, live=True) as sink, connect_viewer(sink) as connection:
        seen = Received(connection)
        assert [s["name"] for s in seen.next("hello")["sources"]] == ["left", "right"]
        for index in (0, 1, 5):
            write(sink, result(index, source="right"))
            frame = seen.next("frame")
            seen.acknowledge(frame)
        assert (frame["source"], frame["dropped"]) == (1, 3)
        sink.set_state("left", "reconnecting", "for the 3rd time")
        while (status := seen.next("status"))["sources"][0]["state"] == "starting":
            pass
        left, right = status["sources"]
        assert (left["state"], left["text"], left["age_ms"]) == ("reconnecting", "for the 3rd time", None)
        assert (right["state"], right["dropped"]) == ("live", 3) and 0 <= right["age_ms"] < 5000


def test_sources_in_turn_share_a_tile_that_names_the_one_that_runs():
    with page(("a.mp4", "b.mp4")) as sink, connect_viewer(sink) as connection:
        seen = Received(connection)
        assert len(seen.next("hello")["sources"]) == 1
        write(sink, result(7, source="a.mp4"))
        seen.next("frame")
        write(sink, result(0, source="b.mp4"))
        frame = seen.next("frame")
        assert (frame["source"], frame["name"], frame["dropped"]) == (0, "b.mp4", 0)


def test_a_live_source_that_falls_silent_is_shown_as_stalled(monkeypatch):
    monkeypatch.setattr(tiles, "STALLED_AFTER_S", 0.2)
    with page(live=True) as sink, connect_viewer(sink) as connection:
        seen = Received(connection)
        write(sink, result(0))
        states = [seen.next("status")["sources"][0]["state"] for _ in range(3)]
        assert states[-1] == "stalled"
        monkeypatch.setattr(tiles, "STALLED_AFTER_S", 5.0)
        write(sink, result(1))
        assert eventually(lambda: seen.next("status")["sources"][0]["state"] == "live")


def test_a_ping_comes_back_with_the_servers_time():
    with page() as sink, connect_viewer(sink) as connection:
        connection.send('{"type":"ping","sent":12.25}')
        pong = Received(connection).next("pong")
        assert pong["sent"] == 12.25 and pong["now"] == pytest.approx(time.monotonic() * 1e3, abs=5e3)
