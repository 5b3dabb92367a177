"""Reconnecting: a live source that is opened again whenever it fails, for as long as it takes."""

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
    """What `open_again` opens. Index and time go on; a frame may have another size than those before the break.

    Pauses grow from 1 to 30 s, each shortened by up to a half at random, so that many cameras that lost one network
    do not come back at once; a frame resets them.
    wait_for_first: wait for a source that cannot be opened now, instead of raising SourceError here.
    told: called with why the source is away, and with None when it is back; from the iterating thread.
    """

    live = True

    def __init__(
        self,
        name: str,
        open_again: Callable[[], Source],
        *,
        wait_for_first: bool = False,
        told: Callable[[str | None], None] = lambda why: None,
        first_pause_s: float = FIRST_PAUSE_S,
    ) -> None:
        self.name = name
        self.told = told
        self._open_again = open_again
        self._first_pause_s = first_pause_s
        self._interrupted = threading.Event()
        self._why = ""  # the newest failure, while the source is away
        self._current: Source | None = None
        try:
            self._current = open_again()
            self.frame_wh = self._current.frame_wh
        except SourceError as error:
            if not wait_for_first:
                raise
            self._why = str(error)

    def __iter__(self) -> Iterator[Frame]:
        index = 0
        first_at: float | None = None
        pause_s = self._first_pause_s
        while not self._interrupted.is_set():
            try:
                for frame in self._opened():
                    if self._why:
                        self._why = ""
                        self.told(None)
                    pause_s = self._first_pause_s
                    first_at = frame.captured_at if first_at is None else first_at
                    yield replace(frame, index=index, time_s=max(0.0, frame.captured_at - first_at))
                    index += 1
                why = f"{self.name} has ended"  # a stream's server has closed it
            except SourceError as error:
                why = str(error)
            finally:
                self.close()
            if self._interrupted.is_set():
                return
            self._why = why
            self.told(why)
            logger.info("%s; trying again", why)
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
