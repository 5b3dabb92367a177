"""Viewer: the state of one browser tab: frames sent and not acknowledged, and its limit of requests."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from pipeline.sinks.web.messages import IN_FLIGHT, Ack, ProtocolError

if TYPE_CHECKING:
    from websockets.asyncio.server import ServerConnection

REQUESTS_PER_SECOND, REQUEST_BURST = 10.0, 40.0  # limits for a viewer; the page sends a ping every two seconds


class Viewer:
    """Used only by the server's thread."""

    def __init__(self, connection: ServerConnection) -> None:
        self.connection = connection
        self._last_sent: dict[int, int] = {}  # tile -> seq of the last frame sent
        self._unacknowledged: dict[int, list[int]] = {}
        self._requests = REQUEST_BURST
        self._refilled_at = time.monotonic()

    def wants(self, tile: int, seq: int) -> bool:
        """Whether to send it frame `seq` now: it is newer than the last one, and not too many are unacknowledged."""
        return seq > self._last_sent.get(tile, 0) and len(self._unacknowledged.get(tile, ())) < IN_FLIGHT

    def sent(self, tile: int, seq: int) -> None:
        self._last_sent[tile] = seq
        self._unacknowledged.setdefault(tile, []).append(seq)

    def acknowledge(self, ack: Ack) -> None:
        """Raises ProtocolError for a frame that was not sent."""
        try:
            self._unacknowledged.get(ack.source, []).remove(ack.seq)
        except ValueError:
            raise ProtocolError("an acknowledgement of a frame that was not sent") from None

    def request(self) -> None:
        """Count one request. Raises ProtocolError when there are too many."""
        now = time.monotonic()
        self._requests = min(REQUEST_BURST, self._requests + (now - self._refilled_at) * REQUESTS_PER_SECOND)
        self._refilled_at = now
        if self._requests < 1:
            raise ProtocolError("too many requests")
        self._requests -= 1
