"""Handles signals between frames, never inside one, so that all sinks get the same frames. Command line only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Self

from core.signals import Stopped, stop_signals


class Interrupts:
    """While active, the first SIGINT, SIGTERM or SIGHUP raises Stopped: at once, or after a running `held` block.

    Later signals have no effect, since the program is ending already; a closed terminal sends two.
    One that a callback from C swallows (see `stop_signals`) comes again at the end of the next `held` block.
    """

    def __init__(self) -> None:
        self._holding = False
        self._signal: int | None = None
        self._handlers = ExitStack()

    def __enter__(self) -> Self:
        self._handlers.enter_context(stop_signals(self._on_signal))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._handlers.__exit__(kind, error, trace)  # an error that a signal caused leaves as Stopped

    def asked(self) -> bool:
        """Whether a signal came."""
        return self._signal is not None

    @contextmanager
    def held(self, *, forget: bool = False) -> Iterator[None]:
        """The block is not interrupted. forget: nor is the code after it, since the program is ending."""
        self._holding = True
        try:
            yield
        finally:
            self._holding = False
        if self._signal is not None and not forget:
            raise Stopped(self._signal)

    def _on_signal(self, number: int) -> None:
        if self._signal is None:
            self._signal = number
            if not self._holding:
                raise Stopped(number)
