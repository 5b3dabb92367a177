"""Reconnecting: a live source that is opened again whenever it fails, without a limit."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace

from core.errors import SourceError
from pipeline.sources.base import Source
from pipeline.types import Frame

logger = logging.getLogger(__name__)

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0


class Reconnecting(Source):
    """Opens the source of `open_again`, and again when it fails. Index and time continue; the frame size may change.

    Pauses between attempts grow from 1 to 30 s. Each is shortened at random by up to a half, so that cameras that lost
    the same network do not reconnect at the same moment. A frame resets the pause.
    wait_for_first: wait for a source that cannot be opened now, instead of raising SourceError.
    on_change: called with the reason when the source fails, and with None when it is back; from the iterating thread.
    """

    live = True

    def __init__(
        self,
        name: str,
        open_again: Callable[[], Source],
        *,
        wait_for_first: bool = False,
        on_change: Callable[[str | None], None] = lambda reason: None,
        first_pause_s: float = FIRST_PAUSE_S,
    ) -> None:
        self.name = name
        self.on_change = on_change
        self._open_again = open_again
        self._first_pause_s = first_pause_s
        self._interrupted = threading.Event()
        self._reason = ""  # of the newest failure; "" while the source works
        self._current: Source | None = None
        try:
            self._current = open_again()
            self.frame_wh = self._current.frame_wh
        except SourceError as error:
            if not wait_for_first:
                raise
            self._reason = str(error)

    def __iter__(self) -> Iterator[Frame]:
        index = 0
        first_at: float | None = None
        pause_s = self._first_pause_s
        while not self._interrupted.is_set():
            try:
                for frame in self._opened():
                    if self._reason:
                        self._reason = ""
                        self.on_change(None)
                    pause_s = self._first_pause_s
                    first_at = frame.captured_at if first_at is None else first_at
                    yield replace(frame, index=index, time_s=max(0.0, frame.captured_at - first_at))
                    index += 1
                reason = f"{self.name} has ended"  # the server closed the stream
            except SourceError as error:
                reason = str(error)
            finally:
                self.close()
            if self._interrupted.is_set():
                return
            self._reason = reason
            self.on_change(reason)
            logger.info("%s; trying again", reason)
            self._interrupted.wait(pause_s * random.uniform(0.5, 1.0))
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def interrupt(self) -> None:
        self._interrupted.set()
        current = self._current
        if current is not None:
            current.interrupt()

    def close(self) -> None:
        current, self._current = self._current, None
        if current is not None:
            current.close()

    def _opened(self) -> Source:
        if self._current is None:
            self._current = self._open_again()
            if self._interrupted.is_set():
                self._current.interrupt()
        return self._current
