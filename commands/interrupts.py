"""Ctrl-C between frames, never inside one: sinks stay in step with each other. For the command line only."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Self


class Interrupts:
    """While active, SIGINT raises KeyboardInterrupt at once, but after a `held` block if one is running."""

    def __init__(self) -> None:
        self._holding = False
        self._pending = False
        self._before: Callable[[int, FrameType | None], object] | int | signal.Handlers | None = None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # elsewhere Python takes no signals
            self._before = signal.signal(signal.SIGINT, self._on_signal)
        return self

    def __exit__(self, *exc: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    @contextmanager
    def held(self, *, forget: bool = False) -> Iterator[None]:
        """What runs in here is not interrupted. forget: a Ctrl-C in here has no effect: the program is ending."""
        self._holding = True
        try:
            yield
        finally:
            self._holding = False
        if self._pending and not forget:
            self._pending = False
            raise KeyboardInterrupt

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if not self._holding:
            raise KeyboardInterrupt
        self._pending = True
