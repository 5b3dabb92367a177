"""The one file that imports pycuda: the primary context, streams, events, memory, and CUDA graphs (by cuda.bindings).

The context is the GPU's primary one, which numba, torch and TensorRT use too. It must be current in every thread that
uses the device: `with device.current():`. A Device frees everything it made, newest first, when it is closed;
`device.free` frees single objects earlier.

While a stream is being captured into a graph, CUDA forbids every thread of the process to wait for the whole device,
but allocating and freeing may do so. Therefore captures, allocations and releases all hold one process-wide lock,
`exclusive()`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from core.errors import EngineError

CudaObject = Any  # of pycuda or cuda.bindings, which have no stubs
HostArray = NDArray[Any]

logger = logging.getLogger(__name__)

T = TypeVar("T", bound="Freeable")

_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING; pycuda has no name for it
SETUP = "run `make gpu` on a machine with an NVIDIA GPU and driver"
BUSY = "close what else uses the GPU; nvidia-smi lists it"
RESTART = "run compute-sanitizer to find the kernel, or restart"

_exclusive = threading.RLock()


@contextmanager
def exclusive() -> Iterator[None]:
    """No capture, allocation or release by another thread of this process runs during the block; blocks may nest.

    The functions of this file take the lock themselves. Callers hold it while another library may allocate or free:
    loading a network, making a decode's workspace, the first run of code that compiles, searches or allocates.
    """
    with _exclusive:
        yield


class Freeable(Protocol):
    """A resource of the device. `free` may be called twice; the caller makes the context current first."""

    def free(self) -> None: ...


class DeviceArray:
    """C-contiguous memory on the device; numba and torch read it through `__cuda_array_interface__`."""

    def __init__(self, shape: tuple[int, ...], dtype: DTypeLike, allocation: CudaObject) -> None:
        self.shape = shape
        self.dtype = np.dtype(dtype)
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

    def reshaped(self, shape: tuple[int, ...]) -> DeviceArray:
        """The same memory under another shape with the same number of elements; this array still owns the memory."""
        if prod(shape) != prod(self.shape):
            raise ValueError(f"an array of shape {self.shape} cannot be seen as {shape}")
        view = DeviceArray(shape, self.dtype, self.pointer)
        view._allocation = None
        return view

    def free(self) -> None:
        if self._allocation is not None:
            self._allocation.free()
            self._allocation = None


@dataclass(frozen=True)
class Rows:
    """Rows of bytes in device memory that another library owns. pitch: bytes from the start of a row to the next."""

    pointer: int
    pitch: int
    width_bytes: int
    count: int


class PinnedArray:
    """Page-locked host memory, which the device reads and writes directly: `array`, C-contiguous."""

    def __init__(self, array: HostArray) -> None:
        self.array = array

    def free(self) -> None:
        """Release the memory; `array` is empty afterwards, and no view of it may exist any more."""
        allocation: CudaObject = self.array.base  # pycuda's handle on the memory
        if allocation is not None:
            self.array = np.empty(0, self.array.dtype)
            allocation.free()


class Graph:
    """A captured sequence of device work, launched as one unit."""

    def __init__(self, graph: CudaObject, executable: CudaObject) -> None:
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

    def __init__(self, event: CudaObject) -> None:
        self.raw = event

    def record(self, stream: Stream | None) -> None:
        """Mark the end of the stream's work up to now; None: of the default stream's, where other libraries work."""
        with _as_engine_error():
            self.raw.record(*(() if stream is None else (stream.raw,)))

    def wait(self) -> None:
        """Block until the work before the last `record` is done; sleeps, does not spin. EngineError if it failed."""
        with _as_engine_error():
            self.raw.synchronize()

    def ms_since(self, earlier: Event) -> float:
        """Device time between two recorded, finished events."""
        with _as_engine_error():
            return float(self.raw.time_since(earlier.raw))

    def free(self) -> None:
        self.raw = None  # pycuda destroys it with its last reference, here while the context is current


class Stream:
    """Work that the device does in order. `handle` is the CUstream as an integer, for numba, torch and TensorRT."""

    def __init__(self, stream: CudaObject) -> None:
        self.raw = stream
        self.handle = int(stream.handle)

    def upload(self, target: DeviceArray, source: HostArray) -> None:
        """Copy pinned host memory to the device; do not change `source` before an event recorded after it is done."""
        pointer = _pointer(target, source)
        with _as_engine_error():
            _pycuda().memcpy_htod_async(pointer, source, self.raw)

    def download(self, target: HostArray, source: DeviceArray | object) -> None:
        """Copy device memory to pinned host memory; `target` is valid once an event recorded after it is done.

        source: a DeviceArray, or C-contiguous memory of another library, read through `__cuda_array_interface__`.
        """
        pointer = _pointer(source, target)
        with _as_engine_error():
            _pycuda().memcpy_dtoh_async(target, pointer, self.raw)

    def copy_rows(self, target: DeviceArray, first: int, source: Rows) -> None:
        """Copy into `target`, a uint8 array, from its row `first` on; its last axis is a row, all others count rows.

        What a row of `target` has beyond the source's width stays as it is. Raises ValueError where they do not fit.
        """
        pitch, rows = target.shape[-1], prod(target.shape[:-1])
        if target.dtype != np.uint8 or source.width_bytes > pitch or not 0 <= first <= rows - source.count:
            raise ValueError(
                f"{source.count} rows of {source.width_bytes} bytes do not fit into {target.dtype} {target.shape} "
                f"from row {first} on"
            )
        driver = _bindings()
        copy = driver.CUDA_MEMCPY2D()
        copy.srcMemoryType = copy.dstMemoryType = driver.CUmemorytype.CU_MEMORYTYPE_DEVICE
        copy.srcDevice, copy.srcPitch = source.pointer, source.pitch
        copy.dstDevice, copy.dstPitch = target.pointer + first * pitch, pitch
        copy.WidthInBytes, copy.Height = source.width_bytes, source.count
        _check(driver.cuMemcpy2DAsync(copy, driver.CUstream(self.handle)), "copy a picture on the device")

    def wait_for(self, event: Event) -> None:
        """Work enqueued here from now on starts after the event's last `record`; the host does not wait."""
        with _as_engine_error():
            self.raw.wait_for_event(event.raw)

    def synchronize(self) -> None:
        """Block until all work enqueued here is done. EngineError if some of it failed."""
        with _as_engine_error():
            self.raw.synchronize()

    def free(self) -> None:
        self.raw = None  # as Event.free

    def capture(self, enqueue: Callable[[], None]) -> Graph:
        """A graph of the work that `enqueue` puts on this stream. The capture itself executes no device work.

        Call `enqueue` once in the same thread before the capture. Raises EngineError if the work cannot be captured;
        its cause is what `enqueue` raised, since each library has its own error for that. Afterwards the stream is
        usable again, and the same work can be enqueued without a graph.
        """
        with exclusive():
            return self._capture(enqueue)

    def _capture(self, enqueue: Callable[[], None]) -> Graph:
        driver = _bindings()
        stream = driver.CUstream(self.handle)
        # Relaxed: libraries may query or allocate on other streams while this one is being captured.
        mode = driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED
        _check(driver.cuStreamBeginCapture(stream, mode), "begin a capture")
        try:
            enqueue()
        except BaseException as error:
            _, broken = driver.cuStreamEndCapture(stream)
            if broken:
                driver.cuGraphDestroy(broken)
            if isinstance(error, Exception):
                words = " ".join(str(error).split()) or type(error).__name__
                raise EngineError(f"this frame's work cannot be captured as a CUDA graph: {words}") from error
            raise
        graph = _check(driver.cuStreamEndCapture(stream), "capture this frame's work as a CUDA graph")
        try:
            return Graph(graph, _check(driver.cuGraphInstantiate(graph, 0), "instantiate a CUDA graph"))
        except EngineError:
            driver.cuGraphDestroy(graph)
            raise


class Device:
    """One GPU's primary context and everything allocated in it. Use it in a `with` block, or close it.

    Raises EngineError, which names the missing part, if there is no pycuda, driver or GPU.
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
        self.index = index
        with _as_engine_error(f"GPU {index} cannot be opened", BUSY):
            device = cuda.Device(index)
            self.name = str(device.name())
            self.compute_capability: tuple[int, int] = tuple(device.compute_capability())
            with exclusive():
                self._context = device.retain_primary_context()
        self._owned: dict[Freeable, None] = {}  # in order of making

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make the context current in this thread for the block; blocks may nest."""
        with _as_engine_error():
            self._open_context().push()
        try:
            yield
        finally:
            _pycuda().Context.pop()

    def stream(self) -> Stream:
        """A stream that does not wait for the default stream, which other libraries may use."""
        with _as_engine_error("the GPU cannot make a stream", BUSY):
            return self.own(Stream(_pycuda().Stream(_NON_BLOCKING)))

    def event(self, *, timing: bool = False) -> Event:
        """An event. With `timing`, `ms_since` can measure it; without, it costs less."""
        flags = _pycuda().event_flags
        with _as_engine_error("the GPU cannot make an event", BUSY):
            return self.own(Event(_pycuda().Event(flags.BLOCKING_SYNC | (0 if timing else flags.DISABLE_TIMING))))

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> DeviceArray:
        """Uninitialised device memory. Raises EngineError when the device is full."""
        cuda = _pycuda()
        size_bytes = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        try:
            with exclusive():
                return self.own(DeviceArray(shape, dtype, cuda.mem_alloc(max(1, size_bytes))))
        except cuda.MemoryError as error:
            free, total = cuda.mem_get_info()
            raise EngineError(
                f"the GPU has {free >> 20} of {total >> 20} MiB free; {size_bytes >> 20} MiB more are needed: "
                "use a smaller --size, or close what else runs on it"
            ) from error
        except cuda.Error as error:
            raise EngineError(f"the GPU cannot allocate {size_bytes >> 10} KiB: {error}; {RESTART}") from error

    def pinned(self, shape: tuple[int, ...], dtype: DTypeLike) -> PinnedArray:
        """Uninitialised page-locked host memory. Raises EngineError when there is no more of it."""
        size_bytes = prod(shape) * np.dtype(dtype).itemsize
        what = f"{size_bytes >> 10} KiB of host memory cannot be page-locked"
        with _as_engine_error(what, "free memory of this machine or container"), exclusive():
            return self.own(PinnedArray(_pycuda().pagelocked_empty(shape, np.dtype(dtype))))

    def free_share(self) -> float:
        """The share of the GPU's memory that no process uses."""
        with _as_engine_error():
            free, total = _pycuda().mem_get_info()
        return float(free / total)

    def own(self, thing: T) -> T:
        """Free `thing` when this device closes, before everything that was made earlier."""
        self._owned[thing] = None
        return thing

    def free(self, *things: Freeable) -> None:
        """Free these objects now instead of when this device closes. No pending work may use them."""
        with _as_engine_error(), exclusive():
            for thing in things:
                self._owned.pop(thing, None)
                thing.free()

    def close(self) -> None:
        """Wait for the device, free what it made, newest first, and release the context. May be called twice.

        A failure to free is logged and the remaining objects are freed: closing must not hide an earlier error.
        """
        if self._context is not None:
            with exclusive():
                self._close(_pycuda())

    def _close(self, cuda: CudaObject) -> None:
        self._context.push()
        try:
            cuda.Context.synchronize()
        except cuda.Error as error:
            logger.warning("the GPU reported %s while closing", error)
        while self._owned:
            thing, _ = self._owned.popitem()
            try:
                thing.free()
            except (cuda.Error, EngineError) as error:
                logger.warning("a %s could not be freed: %s", type(thing).__name__, error)
        try:  # pycuda's detach alone would leave the primary context current in the driver for ever
            _check(_bindings().cuCtxPopCurrent(), "leave the context")
        except EngineError as error:
            logger.warning("%s", error)
        self._context.detach()  # pycuda still counts it as current, so any thread may detach it
        self._context = None

    def _open_context(self) -> CudaObject:
        if self._context is None:
            raise EngineError(f"{self.name} is closed; open a new Device")
        return self._context

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def _pycuda() -> CudaObject:
    try:
        import pycuda.driver as cuda
    except ImportError as error:  # also raised where libcuda.so.1 is missing
        raise EngineError(f"pycuda cannot be loaded ({error}); {SETUP}") from error
    return cuda


def _bindings() -> CudaObject:
    try:
        from cuda.bindings import driver
    except ImportError as error:
        raise EngineError(f"cuda.bindings cannot be loaded ({error}); {SETUP}") from error
    return driver


def _check(answer: tuple[CudaObject, ...], what: str) -> CudaObject:
    """The value of a cuda.bindings call, which returns (status, value…)."""
    status, *values = answer
    if status != _bindings().CUresult.CUDA_SUCCESS:
        raise EngineError(f"the GPU driver could not {what}: {status.name}")
    return values[0] if values else None


@contextmanager
def _as_engine_error(what: str = "the GPU failed", remedy: str = RESTART) -> Iterator[None]:
    """Raise driver errors as EngineError. Earlier work may be the cause: kernels run long after their launch."""
    cuda = _pycuda()
    try:
        yield
    except cuda.Error as error:
        raise EngineError(f"{what}: {error}; {remedy}") from error


def _pointer(device: CudaObject, host: HostArray) -> int:
    """Address of the device array. Raises ValueError unless `host` has as many bytes and both are contiguous."""
    interface = device.__cuda_array_interface__
    shape, dtype = interface["shape"], np.dtype(interface["typestr"])
    size_bytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if size_bytes != host.nbytes or not host.flags.c_contiguous or interface.get("strides") is not None:
        raise ValueError(
            f"host array {host.shape} {host.dtype} does not fit device array {shape} {dtype}; "
            "expected the same number of bytes, C-contiguous"
        )
    return int(interface["data"][0])
