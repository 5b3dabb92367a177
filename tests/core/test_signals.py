"""Signals that ask a program to end."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time

import numpy as np
import pytest

from core.errors import EngineError, as_engine_error
from core.signals import Stopped, interrupt_behind, stop_signals
from kernels.cpu import decode


def test_the_interrupt_behind_an_error_is_found_at_any_depth():
    stop = Stopped(signal.SIGTERM)
    assert interrupt_behind(stop) is stop
    error: BaseException = stop
    for _ in range(3):
        outer = SystemError("a function returned a result with an exception set")
        outer.__cause__ = error
        error = outer
        assert interrupt_behind(error) is stop


def test_an_error_of_cleaning_up_after_an_interrupt_is_that_error():
    try:
        try:
            raise Stopped(signal.SIGTERM)
        finally:
            raise OSError("no space left")
    except OSError as error:
        assert interrupt_behind(error) is None


def test_a_signal_within_a_librarys_code_is_no_failure_of_the_library():
    stop = Stopped()
    with pytest.raises(SystemError) as raised, as_engine_error("it failed"):
        raise SystemError("returned a result with an exception set") from stop
    assert interrupt_behind(raised.value) is stop
    with pytest.raises(EngineError, match="it failed: SystemError: another"), as_engine_error("it failed"):
        raise SystemError("another")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_within_a_compiled_function_leaves_as_stopped(number):
    maps = np.zeros((1, 17, 32, 32), np.float32), np.zeros((1, 17, 16, 16), np.float32)
    decode(*maps)  # compiled
    for _ in range(20):
        with pytest.raises(Stopped) as caught, stop_signals():
            threading.Timer(0.005, os.kill, (os.getpid(), number)).start()
            while True:
                decode(*maps)
        assert caught.value.status == 128 + number


def through_c(work) -> None:
    """Call `work` as a callback from C, which swallows what it raises."""
    ctypes.CFUNCTYPE(None)(work)()


@pytest.fixture
def reported(monkeypatch) -> list[sys.UnraisableHookArgs]:
    """What Python would report on stderr of swallowed exceptions."""
    found: list[sys.UnraisableHookArgs] = []
    monkeypatch.setattr(sys, "unraisablehook", found.append)
    return found


@pytest.mark.parametrize("once", [False, True])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_a_callback_swallows_comes_again(reported, number, once):
    times = 0

    def interrupted() -> None:
        nonlocal times
        times += 1
        os.kill(os.getpid(), number)

    with pytest.raises(Stopped) as caught, stop_signals(once=once):
        through_c(interrupted)
        time.sleep(5)  # ended early: the signal interrupts it
        times = -1
    assert caught.value.status == 128 + number
    assert times == 1
    assert reported == []


def test_a_swallowed_signal_comes_at_the_end_of_the_block_at_the_latest(reported):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(Stopped) as caught, stop_signals():
        through_c(lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert caught.value.status == 143
    time.sleep(0.1)  # it does not come a second time, when nobody expects it
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    assert reported == []
    assert not any(isinstance(one, threading.Timer) for one in threading.enumerate())


def test_another_swallowed_error_is_reported(reported):
    with stop_signals():
        through_c(lambda: 1 / 0)
    assert [type(one.exc_value) for one in reported] == [ZeroDivisionError]
    assert sys.unraisablehook == reported.append


def test_once_ignores_the_signals_after_the_first():
    before = signal.getsignal(signal.SIGTERM)
    with stop_signals(once=True):
        with pytest.raises(Stopped):
            os.kill(os.getpid(), signal.SIGINT)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(os.getpid(), number)
    assert signal.getsignal(signal.SIGTERM) == before
