"""A stand-in for cuda.bindings.driver: captures, graphs and the context's pop, on the state of a FakeDriver.

As the real one it returns (status, value), raises nothing, and knows each graph until it is destroyed.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from types import SimpleNamespace

CUresult = Enum(
    "CUresult",
    {
        "CUDA_SUCCESS": 0,
        "CUDA_ERROR_INVALID_VALUE": 1,
        "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED": 901,
        "CUDA_ERROR_ILLEGAL_STATE": 401,
    },
)
OK = CUresult.CUDA_SUCCESS


class Capture:
    """What was put on a stream since its capture began; broken once something was called that CUDA forbids."""

    def __init__(self):
        self.operations: list[Callable[[], None]] = []
        self.broken = False


class FakeBindings:
    def __init__(self, driver):
        self.driver = driver
        self.graphs: set[Capture] = set()  # that live
        self.executables: dict[Capture, int] = {}  # that live, and how often each was launched
        self.refuses = ""  # the name of a call that fails
        self.CUresult, self.CUstream = CUresult, int
        self.CUDA_MEMCPY2D = SimpleNamespace
        self.CUmemorytype = SimpleNamespace(CU_MEMORYTYPE_DEVICE="device")
        self.CUstreamCaptureMode = SimpleNamespace(CU_STREAM_CAPTURE_MODE_RELAXED="relaxed")

    def cuMemcpy2DAsync(self, copy, stream):
        """Between allocations of the FakeDriver, by the addresses within them."""
        assert copy.srcMemoryType == copy.dstMemoryType == "device"
        source, target = (self.driver.rows(pointer) for pointer in (copy.srcDevice, copy.dstDevice))

        def run():
            for row in range(copy.Height):
                there, here = row * copy.srcPitch, row * copy.dstPitch
                target[here : here + copy.WidthInBytes] = source[there : there + copy.WidthInBytes]

        self.driver.put(stream, run)
        return (OK,)

    def cuCtxPopCurrent(self):
        return OK, self.driver.current().pop()

    def cuStreamBeginCapture(self, stream, mode):
        self.driver.need_context("cuStreamBeginCapture")
        assert mode == "relaxed"
        if stream in self.driver.captures:
            return (CUresult.CUDA_ERROR_ILLEGAL_STATE,)
        self.driver.captures[stream] = Capture()
        return (OK,)

    def cuStreamEndCapture(self, stream):
        capture = self.driver.captures.pop(stream, None)
        if capture is None:
            return CUresult.CUDA_ERROR_INVALID_VALUE, None
        if capture.broken:
            return CUresult.CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, None
        self.graphs.add(capture)
        return OK, capture

    def cuGraphInstantiate(self, graph, flags):
        if self.refuses == "cuGraphInstantiate":
            return CUresult.CUDA_ERROR_INVALID_VALUE, None
        assert graph in self.graphs
        self.executables[graph] = 0
        return OK, graph

    def cuGraphLaunch(self, executable, stream):
        self.driver.need_context("cuGraphLaunch")
        if executable not in self.executables:
            return (CUresult.CUDA_ERROR_INVALID_VALUE,)
        self.executables[executable] += 1
        for operation in executable.operations:
            self.driver.put(stream, operation)
        return (OK,)

    def cuGraphExecDestroy(self, executable):
        self.driver.need_context("cuGraphExecDestroy")
        del self.executables[executable]
        return (OK,)

    def cuGraphDestroy(self, graph):
        self.driver.need_context("cuGraphDestroy")
        self.graphs.remove(graph)
        return (OK,)
