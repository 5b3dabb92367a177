"""Helpers of the tests of the web page: a served page, HTTP requests and WebSocket connections."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from pipeline.sinks.web import Address, WebSink
from pipeline.types import Frame, People, Result

LOCAL = Address("127.0.0.1", 0)
WAIT_S = 10.0


def result(
    index: int, *, source: str = "a.mp4", wh: tuple[int, int] = (64, 48), people: People | None = None
) -> Result:
    """A result with a grey frame, captured now."""
    image = np.full((wh[1], wh[0], 3), 40 + index % 200, np.uint8)
    return Result(Frame(image, index, index / 30, time.monotonic(), source), people or People.nobody())


def write(sink: WebSink, given: Result) -> None:
    sink.write(given, given.frame.image)


@contextmanager
def page(sources: tuple[str, ...] = ("a.mp4",), address: Address = LOCAL, **options) -> Iterator[WebSink]:
    with WebSink(address, sources, **options) as sink:
        yield sink


def get(sink: WebSink, path: str = "/", **headers: str) -> tuple[int, str, dict[str, str]]:
    """Status, text and headers of a plain request."""
    where = urlsplit(sink.url)
    connection = http.client.HTTPConnection("127.0.0.1", where.port or 0, timeout=WAIT_S)
    try:
        connection.putrequest("GET", path, skip_host="Host" in headers)
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, answer.read().decode(), dict(answer.getheaders())
    finally:
        connection.close()


def connect_viewer(sink: WebSink, *, query: str = "", **options) -> ClientConnection:
    """Connect a WebSocket, as the page does."""
    port = urlsplit(sink.url).port
    options.setdefault("max_size", None)
    options.setdefault("open_timeout", WAIT_S)
    made: ClientConnection = connect(f"ws://127.0.0.1:{port}/ws{query}", **options)
    return made


class Received:
    """The messages that a viewer receives, selected by kind."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    def next(self, kind: str, *, within_s: float = WAIT_S) -> dict:
        """The next message of this kind; others are skipped. Raises TimeoutError."""
        deadline = time.monotonic() + within_s
        while True:
            message = unpack(self.connection.recv(timeout=max(0.0, deadline - time.monotonic())))
            if message["type"] == kind:
                return message

    def frames(self, *, for_s: float) -> list[dict]:
        """The frames received in this time, without acknowledging them."""
        deadline = time.monotonic() + for_s
        found = []
        while True:
            try:
                found.append(self.next("frame", within_s=deadline - time.monotonic()))
            except TimeoutError:
                return found

    def acknowledge(self, frame: dict) -> None:
        self.connection.send(json.dumps({"type": "ack", "source": frame["source"], "seq": frame["seq"]}))


def unpack(message: str | bytes) -> dict:
    """A message as a dict; for a frame, its header with the picture as "jpeg"."""
    if isinstance(message, str):
        return dict(json.loads(message))
    length = int.from_bytes(message[:4], "big")
    return {**json.loads(message[4 : 4 + length]), "jpeg": message[4 + length :]}


def eventually(fact: Callable[[], bool], *, within_s: float = WAIT_S) -> bool:
    deadline = time.monotonic() + within_s
    while not fact():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def refusal_status(sink: WebSink, **options) -> int:
    """The HTTP status with which the server refuses a WebSocket."""
    with pytest.raises(InvalidStatus) as caught:
        connect_viewer(sink, **options)
    return int(caught.value.response.status_code)


def wait_for_close(connection: ClientConnection) -> tuple[int, str]:
    """The code and reason with which the server closes the connection; reads the messages before it."""
    with pytest.raises(ConnectionClosed) as caught:
        for _ in range(1000):
            connection.recv(timeout=10)
    close = caught.value.rcvd
    assert close is not None
    return close.code, close.reason
