"""Viewers of the page that come and go, for the long run."""

from __future__ import annotations

import json
import random
import threading
import time
from contextlib import suppress


class Viewers:
    """Threads that watch the page at `port` for a while and leave, unless `away` is set. Daemons: they never end.

    One visit in five acknowledges no frame, as a stalled browser; some leave in the middle of a frame.
    """

    def __init__(self, port: int, number: int, seed: int = 0) -> None:
        self.away = threading.Event()
        self.visits = 0
        self.frames = 0
        self._port = port
        for one in range(number):
            threading.Thread(target=self._look, args=(random.Random(seed + one),), daemon=True).start()

    def _look(self, rng: random.Random) -> None:
        from websockets.exceptions import WebSocketException
        from websockets.sync.client import connect

        while True:
            while self.away.is_set():
                time.sleep(0.05)
            slow, wanted = rng.random() < 0.2, rng.randrange(1, 400)
            with (
                suppress(OSError, TimeoutError, WebSocketException),
                connect(f"ws://127.0.0.1:{self._port}/ws", max_size=None, open_timeout=5, close_timeout=0.2) as socket,
            ):
                self.visits += 1
                for _ in range(wanted):
                    message = socket.recv(timeout=2)
                    if isinstance(message, bytes) and not slow:
                        header = json.loads(message[4 : 4 + int.from_bytes(message[:4], "big")])
                        socket.send(json.dumps({"type": "ack", "source": header["source"], "seq": header["seq"]}))
                        self.frames += 1
                    if self.away.is_set():
                        break
            time.sleep(rng.random() * 3)
