"""Signals that ask a program to end."""

from __future__ import annotations

import os
import signal
import threading

import numpy as np
import pytest

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
