"""The signals that ask a program to end: Ctrl-C, SIGTERM (services, containers), SIGHUP (a closed terminal).

Imports only modules of the standard library that load fast: commands install `end_at_once` before their long imports.
"""

from __future__ import annotations

import _thread
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

STOP_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
AGAIN_S = 0.05  # until a signal comes again that was swallowed


class Stopped(KeyboardInterrupt):
    """A signal asks the program to finish its outputs and end. Code that handles Ctrl-C handles every such signal.

    status: the exit status, 128 + the signal. The text is "interrupted" or "interrupted by SIGTERM".
    """

    def __init__(self, number: int = signal.SIGINT) -> None:
        by = "" if number == signal.SIGINT else f" by {signal.Signals(number).name}"
        super().__init__(f"interrupted{by}")
        self.number = number
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


_asked_at: list[float] = []  # by time.monotonic, of the newest signal; signals are the process's, and so is this


def seconds_since_stop() -> float | None:
    """How long ago the newest signal came that asks the program to end; None if none came in this `stop_signals`."""
    return time.monotonic() - _asked_at[0] if _asked_at else None


@contextmanager
def stop_signals(handler: Callable[[int], None] | None = None, *, once: bool = False) -> Iterator[None]:
    """Within the block, the signals raise Stopped in the main thread, or call `handler` with their number.

    once: signals after the first are ignored, so that they do not interrupt the shutdown.
    An error that such an exception caused leaves the block as that exception, see `interrupt_behind`.
    A destructor or a callback from C swallows what is raised in it, such as Numba's when it loads machine code. Python
    would report that on stderr. Here it is silent, and without a handler the signal comes again `AGAIN_S` later, or at
    the block's end if that is earlier.
    SIGTERM and SIGHUP stay ignored if they were (`nohup`). In other threads, which get no signals, it has no effect.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _asked_at.clear()
    wanted = _wanted()
    swallowed: list[Stopped] = []
    timers: list[threading.Timer] = []

    def act(number: int, frame: FrameType | None) -> None:
        _asked_at[:] = [time.monotonic()]
        swallowed.clear()
        for timer in timers:
            timer.cancel()
        if once:
            for one in wanted:
                signal.signal(one, signal.SIG_IGN)
        if handler is None:
            raise Stopped(number)
        handler(number)

    def report_others(unraisable: sys.UnraisableHookArgs) -> None:
        stop = unraisable.exc_value
        if not isinstance(stop, Stopped):
            report(unraisable)
        elif handler is None:
            for number in wanted:
                signal.signal(number, act)
            swallowed.append(stop)
            timers.append(threading.Timer(AGAIN_S, _signal_main_thread, [stop.number]))
            timers[-1].start()

    before = {number: signal.signal(number, act) for number in wanted}
    report, sys.unraisablehook = sys.unraisablehook, report_others
    try:
        yield
        if swallowed:
            raise swallowed[0]
    except Exception as error:
        interrupt = interrupt_behind(error)
        if interrupt is None:
            raise
        raise interrupt from None
    finally:
        for timer in timers:
            timer.cancel()
            timer.join()
        sys.unraisablehook = report
        for number, action in before.items():
            signal.signal(number, action)


def _signal_main_thread(number: int) -> None:
    main = threading.main_thread().ident
    if main is not None and hasattr(signal, "pthread_kill"):
        signal.pthread_kill(main, number)
    else:
        _thread.interrupt_main(signal.Signals(number))  # Windows; it ends no blocking call


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
