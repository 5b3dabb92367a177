"""The visitor's camera: its pictures over the WebSocket and the source `browser`."""

from __future__ import annotations

import logging
import threading
import time

import cv2
import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed

from pipeline.sinks.web.messages import pack_frame
from pipeline.sources.browser import BrowserSource
from pipeline.types import Frame
from tests.pipeline.sinks.web.serving import (
    WAIT_S,
    Received,
    connect_viewer,
    eventually,
    page,
    wait_for_close,
)


def send_picture(connection, *, wh=(64, 48), captured_ms=None) -> None:
    jpeg = cv2.imencode(".jpg", np.full((wh[1], wh[0], 3), 90, np.uint8))[1].tobytes()
    connection.send(pack_frame({"captured_ms": captured_ms}, jpeg))


def test_a_visitors_pictures_become_frames_of_the_source_browser():
    source = BrowserSource()
    with page(("browser",), camera=source, live=True) as sink, connect_viewer(sink) as connection:
        seen = Received(connection)
        hello = seen.next("hello")
        assert hello["camera"] == 0 and hello["sources"][0]["state"] == "waiting"
        connection.send('{"type":"camera"}')
        assert seen.next("camera")["granted"]
        frames = iter(source)
        now = time.monotonic()
        send_picture(connection, captured_ms=(now - 0.05) * 1e3)
        frame = next(frames)
        assert (frame.wh, frame.index, frame.source) == ((64, 48), 0, "browser")
        assert frame.captured_at == pytest.approx(now - 0.05)
        seen.next("taken")
        send_picture(connection, captured_ms=9e15)  # a clock that lies
        assert next(frames).captured_at == pytest.approx(time.monotonic(), abs=2)
        source.interrupt()
        assert list(frames) == []


def test_one_visitor_at_a_time_gives_a_camera_and_the_next_when_they_leave():
    with page(("browser",), camera=BrowserSource()) as sink, connect_viewer(sink) as second:
        seen = Received(second)
        with connect_viewer(sink) as first:
            first.send('{"type":"camera"}')
            assert Received(first).next("camera")["granted"]
            second.send('{"type":"camera"}')
            assert seen.next("camera") == {
                "type": "camera",
                "granted": False,
                "text": "Another visitor's camera is in use.",
            }
        assert eventually(lambda: not seen.next("status")["camera"])
        second.send('{"type":"camera"}')
        assert seen.next("camera")["granted"]


def test_pictures_that_nobody_asked_for_close_the_connection():
    with page(("browser",), camera=BrowserSource()) as sink, connect_viewer(sink) as connection:
        send_picture(connection)
        assert wait_for_close(connection) == (1008, "refused: a picture that was not requested")
    with page() as sink, connect_viewer(sink) as connection:
        connection.send('{"type":"camera"}')
        answer = Received(connection).next("camera")
        assert not answer["granted"] and "source browser" in answer["text"]


def test_a_flood_of_pictures_closes_the_connection_and_keeps_at_most_one(caplog):
    caplog.set_level(logging.DEBUG, "pipeline.sinks.web")
    source = BrowserSource()
    with page(("browser",), camera=source) as sink, connect_viewer(sink) as connection:
        connection.send('{"type":"camera"}')
        Received(connection).next("camera")
        with pytest.raises(ConnectionClosed):
            deadline = time.monotonic() + WAIT_S
            while time.monotonic() < deadline:  # without waiting for `taken`
                send_picture(connection)
        # what it was told may be lost: it was sending, not listening, when the connection was cut
        assert "a viewer was closed: too many pictures" in caplog.text
        assert eventually(lambda: sink.viewers == 0)
        with connect_viewer(sink) as other:  # the source waits for the next visitor
            other.send('{"type":"camera"}')
            assert Received(other).next("camera")["granted"]


def test_a_picture_that_cannot_be_decoded_closes_the_connection_and_not_the_source():
    source = BrowserSource()
    with page(("browser",), camera=source) as sink:
        frames = iter(source)
        found: list[Frame] = []
        reader = threading.Thread(target=lambda: found.extend(frames))
        reader.start()
        with connect_viewer(sink) as connection:
            connection.send('{"type":"camera"}')
            Received(connection).next("camera")
            jpeg = cv2.imencode(".jpg", np.zeros((48, 64, 3), np.uint8))[1].tobytes()
            at = jpeg.index(b"\xff\xc0")
            connection.send(pack_frame({}, jpeg[: at + 11]))  # a size, and nothing after it
            assert wait_for_close(connection) == (1008, "refused: a picture that cannot be decoded")
        with connect_viewer(sink) as connection:
            connection.send('{"type":"camera"}')
            Received(connection).next("camera")
            send_picture(connection)
            assert eventually(lambda: len(found) == 1)
        source.interrupt()
        reader.join(10)
        assert not reader.is_alive()
