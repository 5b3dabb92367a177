"""BrowserSource: the visitor's own camera, as the page sends it. Frames come from the web server's thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import cv2
import numpy as np

from pipeline.sources.base import BROWSER, Source
from pipeline.types import Frame

OLDEST_S = 5.0  # a page may say that its picture was taken at most so long ago

Taken = Callable[[str | None], None]


class BrowserSource(Source):
    """Newest picture only; waits for a visitor as long as it takes, and for the next when one leaves.

    `offer` and `left` come from the server's thread and do not wait; the pictures are decoded where they are iterated.
    dropped: pictures that were replaced by newer ones before they were decoded.
    """

    live = True

    def __init__(self) -> None:
        self.name = BROWSER
        self.dropped = 0
        self._waiting: tuple[bytes, float, Taken] | None = None
        self._interrupted = False
        self._changed = threading.Condition()

    def offer(self, jpeg: bytes, captured_at: float | None, taken: Taken) -> None:
        """A JPEG; captured_at: as Frame's, as far as the page can tell, else None.

        taken: called once, with None when the picture was decoded or replaced, or with what is wrong with it.
        """
        now = time.monotonic()
        # what a page says of its clock is not trusted: never the future, never long ago
        at = now if captured_at is None else min(now, max(now - OLDEST_S, captured_at))
        with self._changed:
            replaced, self._waiting = self._waiting, (jpeg, at, taken)
            self._changed.notify()
        if replaced is not None:
            self.dropped += 1
            replaced[2](None)

    def left(self) -> None:
        """The visitor has gone: what they sent last is not shown any more."""
        with self._changed:
            self._waiting = None

    def __iter__(self) -> Iterator[Frame]:
        index, first_at = 0, 0.0
        while (waiting := self._next()) is not None:
            jpeg, captured_at, taken = waiting
            try:
                image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
            except cv2.error:
                image = None
            if image is None:
                taken("a picture that cannot be decoded")
                continue
            taken(None)
            first_at = first_at or captured_at
            yield Frame(np.asarray(image, np.uint8), index, max(0.0, captured_at - first_at), captured_at, self.name)
            index += 1

    def interrupt(self) -> None:
        with self._changed:
            self._interrupted = True
            self._changed.notify_all()

    def _next(self) -> tuple[bytes, float, Taken] | None:
        """The newest picture, waited for; None after `interrupt`."""
        with self._changed:
            while self._waiting is None and not self._interrupted:
                self._changed.wait()
            waiting, self._waiting = self._waiting, None
            return None if self._interrupted else waiting
