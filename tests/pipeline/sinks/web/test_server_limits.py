"""Invalid messages, limits, and the end of the server."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed

from pipeline.sinks.web.messages import pack_frame
from pipeline.sources.browser import BrowserSource
from tests.pipeline.sinks.web.serving import (
    Received,
    connect_viewer,
    eventually,
    get,
    page,
    result,
    wait_for_close,
    write,
)


@pytest.mark.parametrize(
    "message",
    [
        "x",
        "{}",
        '{"type":"ack","source":0,"seq":1}',
        '{"type":"ack","source":99,"seq":1}',
        b"",
        b"\0\0\0\2{}\xff\xd8",
        pack_frame({}, b"\xff\xd8"),
    ],
)
def test_malformed_messages_close_the_connection_and_no_other(message):
    with page() as sink, connect_viewer(sink) as other, connect_viewer(sink) as connection:
        connection.send(message)
        assert wait_for_close(connection)[0] == 1008
        write(sink, result(0))
        assert Received(other).next("frame")["frame"] == 0


@pytest.mark.parametrize("camera", [False, True])
def test_oversized_messages_close_the_connection(camera):
    with page(("browser",), camera=BrowserSource() if camera else None) as sink, connect_viewer(sink) as connection:
        connection.send(b"\0" * (3 << 20 if camera else 4096))
        assert wait_for_close(connection)[0] == 1009


def test_a_flood_of_requests_closes_the_connection():
    with page() as sink, connect_viewer(sink) as connection:
        for _ in range(200):
            try:
                connection.send('{"type":"ping","sent":1}')
            except ConnectionClosed:
                break
        assert wait_for_close(connection) == (1008, "refused: too many requests")


def test_it_says_goodbye_and_leaves_no_thread():
    before = set(threading.enumerate())
    with ExitStack() as stack:
        with page() as sink:
            connection = stack.enter_context(connect_viewer(sink))
            seen = Received(connection)
            seen.next("hello")
            sink.end_text = "The camera was unplugged."
        assert seen.next("end")["text"] == "The camera was unplugged."
        assert wait_for_close(connection)[0] == 1001
        sink.close()  # again
    assert {t for t in threading.enumerate() if t.name.startswith("web")} - before == set()


def test_closing_waits_for_no_viewer_that_takes_nothing():
    with page() as sink:
        port = urlsplit(sink.url).port
        deaf = socket.create_connection(("127.0.0.1", port), timeout=5)
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.sendall(
            f"GET /ws HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        noise = np.random.default_rng(0).integers(0, 256, (1280, 1280, 3), np.uint8)
        assert eventually(lambda: sink.viewers == 1)
        for index in range(3):
            shot = result(index)
            object.__setattr__(shot.frame, "picture", noise)  # two pictures of this fill every buffer on the way
            write(sink, shot)
            time.sleep(0.1)
        start = time.monotonic()
    assert time.monotonic() - start < 5
    deaf.close()


def test_viewers_that_come_and_go_leave_nothing():
    with page() as sink:
        write(sink, result(0))

        def held() -> tuple[int, int]:
            return len(list(Path("/proc/self/fd").iterdir())), threading.active_count()

        def come_and_go(times: int) -> None:
            for number in range(times):
                with connect_viewer(sink, compression=None) as connection:
                    if number % 2:
                        connection.socket.shutdown(socket.SHUT_RDWR)  # without a goodbye
            assert eventually(lambda: sink.viewers == 0)

        come_and_go(10)
        before = held()
        come_and_go(100)
        assert eventually(lambda: held() <= before)


def test_no_more_viewers_come_in_than_there_is_room_for(monkeypatch):
    monkeypatch.setattr("pipeline.sinks.web.hub.MAX_VIEWERS", 1)
    with page() as sink, connect_viewer(sink) as first, connect_viewer(sink) as second:
        assert wait_for_close(second) == (1013, "1 viewers are connected already")
        Received(first).next("status")


def test_connections_beyond_the_limit_are_cut_off_and_the_page_comes_back(monkeypatch, capfd):
    monkeypatch.setattr("pipeline.sinks.web.server.MAX_CONNECTIONS", 3)
    with page() as sink, ExitStack() as stack:
        where = ("127.0.0.1", urlsplit(sink.url).port)
        silent = [stack.enter_context(socket.create_connection(where, timeout=5)) for _ in range(3)]
        with suppress(ConnectionResetError), socket.create_connection(where, timeout=5) as fourth:
            assert fourth.recv(1) == b""
        for one in silent:
            one.close()

        def answers() -> bool:
            with suppress(OSError, http.client.HTTPException):
                return get(sink)[0] == 200
            return False

        assert eventually(answers)
    assert capfd.readouterr().err == ""
