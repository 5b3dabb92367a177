"""The signals that ask a program to end: Ctrl-C, SIGTERM (services, containers), SIGHUP (a closed terminal).

Imports only modules of the standard library that load fast: commands install `end_at_once` before their long imports.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

STOP_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class Stopped(KeyboardInterrupt):
    """A signal asks the program to finish its outputs and end. Code that handles Ctrl-C handles every such signal.

    status: the exit status, 128 + the signal. The text is "interrupted" or "interrupted by SIGTERM".
    """

    def __init__(self, number: int = signal.SIGINT) -> None:
        by = "" if number == signal.SIGINT else f" by {signal.Signals(number).name}"
        super().__init__(f"interrupted{by}")
        self.status = 128 + number


def stop_of(error: KeyboardInterrupt) -> Stopped:
    """`error` itself if it is Stopped, else Stopped for Python's own KeyboardInterrupt (Ctrl-C)."""
    return error if isinstance(error, Stopped) else Stopped()


def interrupt_behind(error: BaseException) -> KeyboardInterrupt | None:
    """The KeyboardInterrupt that caused `error`, directly or through other errors.

    A signal within C code raises there, and CPython then reports SystemErrors: Numba's dispatcher gives two in a row.
    """
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, KeyboardInterrupt):
        cause = cause.__cause__
    return cause


@contextmanager
def stop_signals(handler: Callable[[int], None] | None = None) -> Iterator[None]:
    """Within the block, the signals raise Stopped in the main thread, or call `handler` with their number.

    An error that such an exception caused leaves the block as that exception, see `interrupt_behind`.
    SIGTERM and SIGHUP stay ignored if they were (`nohup`). In other threads, which get no signals, it has no effect.
    """

    def act(number: int, frame: FrameType | None) -> None:
        if handler is None:
            raise Stopped(number)
        handler(number)

    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.signal(number, act) for number in _wanted()}
    try:
        yield
    except Exception as error:
        interrupt = interrupt_behind(error)
        if interrupt is None:
            raise
        raise interrupt from None
    finally:
        for number, action in before.items():
            signal.signal(number, action)


def end_at_once(prog: str) -> None:
    """From now on, outside `stop_signals`, a signal ends the process with one line on stderr and its exit status."""

    def act(number: int, frame: FrameType | None) -> None:
        stop = Stopped(number)
        with suppress(OSError):
            os.write(2, f"{prog}: {stop}\n".encode())
        os._exit(stop.status)  # an exception inside an import may be swallowed, or look like a failed import

    for number in _wanted():
        signal.signal(number, act)


def _wanted() -> list[signal.Signals]:
    return [n for n in STOP_SIGNALS if n == signal.SIGINT or signal.getsignal(n) != signal.SIG_IGN]
