"""One browser tab each: what it has been sent and has not acknowledged, and how often it may ask."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from pipeline.sinks.web.messages import IN_FLIGHT, Ack, ProtocolError

if TYPE_CHECKING:
    from websockets.asyncio.server import ServerConnection

REQUESTS_A_SECOND, REQUESTS_AT_ONCE = 10.0, 40.0  # pings and the like; the page sends one in two seconds


class Viewer:
    """Only the server's thread touches it."""

    def __init__(self, connection: ServerConnection) -> None:
        self.connection = connection
        self._seen: dict[int, int] = {}  # tile -> seq of the last frame sent
        self._unacknowledged: dict[int, list[int]] = {}
        self._requests = REQUESTS_AT_ONCE
        self._refilled_at = time.monotonic()

    def wants(self, tile: int, seq: int) -> bool:
        """Whether it can take frame `seq` now: a newer one than it has, and not too many on their way."""
        return seq > self._seen.get(tile, 0) and len(self._unacknowledged.get(tile, ())) < IN_FLIGHT

    def sent(self, tile: int, seq: int) -> None:
        self._seen[tile] = seq
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
        self._requests = min(REQUESTS_AT_ONCE, self._requests + (now - self._refilled_at) * REQUESTS_A_SECOND)
        self._refilled_at = now
        if self._requests < 1:
            raise ProtocolError("too many requests")
        self._requests -= 1
