"""CUDA streams, events and graphs for GPU tests and benchmarks, straight from the driver (cuda.bindings)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any


def _driver() -> Any:
    from cuda.bindings import driver

    return driver


def _check(answer: Any) -> Any:
    status, *values = answer
    if int(status):
        raise RuntimeError(f"CUDA says {status}")
    return values[0] if len(values) == 1 else None


class Stream:
    """A stream that does not wait for the default one; the current context is Numba's."""

    def __init__(self) -> None:
        self._stream = _check(_driver().cuStreamCreate(_driver().CUstream_flags.CU_STREAM_NON_BLOCKING.value))
        self.handle = int(self._stream)

    def wait(self) -> None:
        _check(_driver().cuStreamSynchronize(self._stream))

    def event(self) -> Any:
        """An event recorded after what the stream has so far."""
        event = _check(_driver().cuEventCreate(0))
        _check(_driver().cuEventRecord(event, self._stream))
        return event

    def capture(self, enqueue: Callable[[], object]) -> Callable[[], None]:
        """What `enqueue` puts on this stream as one graph; call the result to launch it."""
        driver = _driver()
        _check(driver.cuStreamBeginCapture(self._stream, driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED))
        try:
            enqueue()
        finally:
            graph = _check(driver.cuStreamEndCapture(self._stream))
        executable = _check(driver.cuGraphInstantiate(graph, 0))
        return lambda: _check(driver.cuGraphLaunch(executable, self._stream))


def microseconds(before: Any, after: Any) -> float:
    """Device time between two events; waits for the later one."""
    _check(_driver().cuEventSynchronize(after))
    return 1e3 * float(_check(_driver().cuEventElapsedTime(before, after)))


def is_pending(event: Any) -> bool:
    """Whether the device has not reached the event yet."""
    status = _driver().cuEventQuery(event)[0]
    if status == _driver().CUresult.CUDA_ERROR_NOT_READY:
        return True
    _check((status,))
    return False


def destroy(events: Iterable[Any]) -> None:
    for event in events:
        _check(_driver().cuEventDestroy(event))
