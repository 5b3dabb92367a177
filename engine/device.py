"""The one file that imports pycuda: the primary context, streams, events, memory, and CUDA graphs (by cuda.bindings).

The context is the GPU's primary one, which numba, torch and TensorRT use too. It must be current in every thread that
touches the device: `with device.current():`. What a Device makes, it releases, newest first, when it is closed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray

from engine.errors import EngineError

logger = logging.getLogger(__name__)

SETUP = "run `make gpu` on a machine with an NVIDIA GPU and driver"


class DeviceArray:
    """C-contiguous memory on the device; numba and torch read it through `__cuda_array_interface__`."""

    def __init__(self, shape: tuple[int, ...], dtype: DTypeLike, allocation: Any) -> None:
        self.shape = shape
        self.dtype = np.dtype(dtype)
        self.size_bytes = int(np.prod(shape, dtype=np.int64)) * self.dtype.itemsize
        self.pointer = int(allocation)
        self._allocation = allocation

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.pointer, False),
            "strides": None,
            "version": 3,
        }

    def free(self) -> None:
        if self._allocation is not None:
            self._allocation.free()
            self._allocation = None


class Graph:
    """A captured sequence of device work, launched whole."""

    def __init__(self, graph: Any, executable: Any) -> None:
        self._graph = graph
        self._executable = executable

    def launch(self, stream: Stream) -> None:
        """Enqueue the sequence on `stream`; returns at once."""
        driver = _bindings()
        _check(driver.cuGraphLaunch(self._executable, driver.CUstream(stream.handle)), "launch a CUDA graph")

    def free(self) -> None:
        if self._executable is not None:
            driver = _bindings()
            _check(driver.cuGraphExecDestroy(self._executable), "destroy a CUDA graph")
            _check(driver.cuGraphDestroy(self._graph), "destroy a CUDA graph")
            self._executable = None


class Event:
    """A point in a stream's work that a thread can wait for and that can be timed."""

    def __init__(self, event: Any) -> None:
        self._event = event

    def record(self, stream: Stream) -> None:
        self._event.record(stream.raw)

    def wait(self) -> None:
        """Block until the work before the last `record` is done; sleeps, does not spin."""
        self._event.synchronize()

    def ms_since(self, earlier: Event) -> float:
        """Device time between two recorded, finished events."""
        return float(self._event.time_since(earlier._event))

    def free(self) -> None:
        self._event = None  # pycuda destroys it with its last reference, here while the context is current


class Stream:
    """Work that the device does in order. `handle` is the CUstream as an integer, for numba, torch and TensorRT."""

    def __init__(self, stream: Any) -> None:
        self.raw = stream
        self.handle = int(stream.handle)

    def upload(self, target: DeviceArray, source: NDArray[Any]) -> None:
        """Copy pinned host memory to the device; `source` must stay untouched until an event behind it has passed."""
        _same_bytes(target, source)
        _pycuda().memcpy_htod_async(target.pointer, source, self.raw)

    def download(self, target: NDArray[Any], source: DeviceArray) -> None:
        """Copy device memory to pinned host memory; `target` is valid once an event behind it has passed."""
        _same_bytes(source, target)
        _pycuda().memcpy_dtoh_async(target, source.pointer, self.raw)

    def synchronize(self) -> None:
        self.raw.synchronize()

    def free(self) -> None:
        self.raw = None  # as Event.free

    def capture(self, enqueue: Callable[[], None]) -> Graph:
        """A graph of what `enqueue` puts on this stream. Nothing runs; kernels must have run once before.

        Raises what `enqueue` raises, the stream usable again, and EngineError where something cannot be captured.
        """
        driver = _bindings()
        stream = driver.CUstream(self.handle)
        # Relaxed: libraries may query or allocate on other streams while this one is being captured.
        mode = driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED
        _check(driver.cuStreamBeginCapture(stream, mode), "begin a capture")
        try:
            enqueue()
        except BaseException:
            _, broken = driver.cuStreamEndCapture(stream)
            if broken:
                driver.cuGraphDestroy(broken)
            raise
        graph = _check(driver.cuStreamEndCapture(stream), "capture this frame's work as a CUDA graph")
        try:
            return Graph(graph, _check(driver.cuGraphInstantiate(graph, 0), "instantiate a CUDA graph"))
        except EngineError:
            driver.cuGraphDestroy(graph)
            raise


class Device:
    """One GPU's primary context and everything allocated in it. Use it in a `with` block, or close it.

    Raises EngineError, saying what is missing, where there is no pycuda, driver or GPU.
    """

    def __init__(self, index: int = 0) -> None:
        cuda = _pycuda()
        try:
            cuda.init()
            count = cuda.Device.count()
        except cuda.Error as error:
            raise EngineError(f"CUDA does not start: {error}; expected an NVIDIA GPU and driver; {SETUP}") from error
        if not 0 <= index < count:
            raise EngineError(f"GPU {index} was asked for, {count} found; expected 0 to {count - 1}; {SETUP}")
        device = cuda.Device(index)
        self.name = str(device.name())
        self.compute_capability: tuple[int, int] = tuple(device.compute_capability())
        self._context = device.retain_primary_context()
        self._owned: list[tuple[str, Callable[[], None]]] = []

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make the context current in this thread for the block; blocks may nest."""
        self._open_context().push()
        try:
            yield
        finally:
            _pycuda().Context.pop()

    def stream(self) -> Stream:
        stream = Stream(_pycuda().Stream())
        self.own("stream", stream.free)
        return stream

    def event(self, *, timing: bool = False) -> Event:
        """An event; with `timing` it can be measured, without it is cheaper."""
        flags = _pycuda().event_flags
        event = Event(_pycuda().Event(flags.BLOCKING_SYNC | (0 if timing else flags.DISABLE_TIMING)))
        self.own("event", event.free)
        return event

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> DeviceArray:
        """Uninitialised device memory. Raises EngineError when the device is full."""
        cuda = _pycuda()
        size_bytes = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        try:
            array = DeviceArray(shape, dtype, cuda.mem_alloc(max(1, size_bytes)))
        except cuda.MemoryError as error:
            free, total = cuda.mem_get_info()
            raise EngineError(
                f"the GPU has {free >> 20} of {total >> 20} MiB free; {size_bytes >> 20} MiB more are needed: "
                "use a smaller --size, or close what else runs on it"
            ) from error
        self.own(f"device array {shape}", array.free)
        return array

    def pinned(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """Uninitialised page-locked host memory, which the device reads and writes directly."""
        array: NDArray[Any] = _pycuda().pagelocked_empty(shape, np.dtype(dtype))
        allocation: Any = array.base  # pycuda's handle on the memory
        self.own(f"pinned array {shape}", allocation.free)
        return array

    def own(self, name: str, release: Callable[[], None]) -> None:
        """Call `release` when this device closes, before everything that was made earlier."""
        self._owned.append((name, release))

    def close(self) -> None:
        """Wait for the device, release newest first, give the context back. May be called twice.

        A release that fails is logged and the rest go on: closing must not hide the error that led here.
        """
        if self._context is None:
            return
        cuda = _pycuda()
        self._context.push()
        try:
            cuda.Context.synchronize()
        except cuda.Error as error:
            logger.warning("the GPU reported %s while closing", error)
        while self._owned:
            name, release = self._owned.pop()
            try:
                release()
            except (cuda.Error, EngineError) as error:
                logger.warning("%s could not be released: %s", name, error)
        self._context.detach()  # still current, so that any thread may do it; detaching ends that too
        self._context = None

    def _open_context(self) -> Any:
        if self._context is None:
            raise EngineError(f"{self.name} is closed; open a new Device")
        return self._context

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def _pycuda() -> Any:
    try:
        import pycuda.driver as cuda
    except ImportError as error:  # also raised where libcuda.so.1 is missing
        raise EngineError(f"pycuda cannot be loaded ({error}); {SETUP}") from error
    return cuda


def _bindings() -> Any:
    try:
        from cuda.bindings import driver
    except ImportError as error:
        raise EngineError(f"cuda.bindings cannot be loaded ({error}); {SETUP}") from error
    return driver


def _check(answer: tuple[Any, ...], what: str) -> Any:
    """The value of a cuda.bindings call, which returns (status, value…)."""
    status, *values = answer
    if status != _bindings().CUresult.CUDA_SUCCESS:
        raise EngineError(f"the GPU driver could not {what}: {status.name}")
    return values[0] if values else None


def _same_bytes(device: DeviceArray, host: NDArray[Any]) -> None:
    if device.size_bytes != host.nbytes or not host.flags.c_contiguous:
        raise ValueError(
            f"host array {host.shape} {host.dtype} does not fit device array {device.shape} {device.dtype}; "
            "expected the same number of bytes, C-contiguous"
        )
