"""BrowserSource: the camera of the page's visitor. The web server's thread passes its pictures to this source."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import cv2
import numpy as np

from pipeline.sources.base import BROWSER, Source
from pipeline.types import Frame

MAX_AGE_S = 5.0  # limit on the age of a picture that a page reports

Taken = Callable[[str | None], None]


class BrowserSource(Source):
    """Holds only the newest picture. It waits for a visitor, and for the next one when a visitor leaves.

    The server calls `offer` and `visitor_left`, which do not wait; the iterating thread decodes the pictures.
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
        """Pass a JPEG to the source. captured_at: as in Frame, if the page knows it, else None.

        taken: called once, with None when the picture has been decoded or replaced, or with the reason it is invalid.
        """
        now = time.monotonic()
        # the page's clock is not trusted: the time is limited to the last MAX_AGE_S
        at = now if captured_at is None else min(now, max(now - MAX_AGE_S, captured_at))
        with self._changed:
            replaced, self._waiting = self._waiting, (jpeg, at, taken)
            self._changed.notify()
        if replaced is not None:
            self.dropped += 1
            replaced[2](None)

    def visitor_left(self) -> None:
        """The visitor has left: discard a picture that is not decoded yet."""
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
        """Wait for the newest picture; None after `interrupt`."""
        with self._changed:
            while self._waiting is None and not self._interrupted:
                self._changed.wait()
            waiting, self._waiting = self._waiting, None
            return None if self._interrupted else waiting
