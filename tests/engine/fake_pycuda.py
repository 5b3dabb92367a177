"""A stand-in for pycuda.driver on a machine without a GPU: it checks that every call finds the context current.

What is put on a stream runs at once, unless the stream is being captured: then it is kept for the graph, and what CUDA
forbids meanwhile (waiting for that stream or, in any thread, for the whole device, which allocating may do) raises and
breaks the capture. The calls for graphs are in fake_bindings.py.
"""

from __future__ import annotations

import sys
import threading
from types import ModuleType

import numpy as np
import pytest

from tests.engine.fake_bindings import Capture, FakeBindings


class Error(Exception):
    pass


class OutOfMemoryError(Error):
    pass


class FakeDriver(ModuleType):
    """Counts what lives, refuses calls without the current context, and frees nothing by itself."""

    Error = Error
    MemoryError = OutOfMemoryError

    def __init__(self, gpus: int = 1, memory_bytes: int = 1 << 30) -> None:
        super().__init__("pycuda.driver")
        self.gpus = gpus
        self.free_bytes = memory_bytes
        self.log: list[str] = []
        self.live: set[str] = set()
        self.stack = threading.local()
        self.retained = 0
        self.memory: dict[int, np.ndarray] = {}
        self.captures: dict[int, Capture] = {}  # of streams by their handles, while they last
        self.streams = 0
        self.bindings = FakeBindings(self)
        fake = self

        class Flags:
            BLOCKING_SYNC = 1
            DISABLE_TIMING = 2

        class Primary:
            def push(self):
                if fake.contexts():
                    fake.current().pop()
                fake.current().append(self)
                fake.contexts().append(self)

            def detach(self):  # as pycuda 2026.1: the driver's stack stays as it is
                fake.need_context("detach")
                fake.retained -= 1
                fake.contexts().clear()

        class Context:
            @staticmethod
            def pop():
                fake.need_context("pop")
                fake.contexts().pop()
                fake.current().pop()
                fake.current().extend(fake.contexts()[-1:])

            @staticmethod
            def synchronize():
                fake.wait_for_device("synchronize")
                fake.log.append("synchronize")

        class Device:
            def __init__(self, index):
                self.index = index

            @staticmethod
            def count():
                return fake.gpus

            def name(self):
                return "Fake GPU"

            def compute_capability(self):
                return (9, 0)

            def retain_primary_context(self):
                fake.retained += 1
                return Primary()

        class Stream:
            def __init__(self, flags=0):
                fake.need_context("Stream")
                self.handle = 77 + fake.streams
                fake.streams += 1
                fake.live.add(f"stream {self.handle}")

            def synchronize(self):
                fake.need_context("Stream.synchronize")
                fake.not_captured(self.handle, "cuStreamSynchronize")

            def wait_for_event(self, event):
                fake.log.append("wait for event")
                if self.handle in fake.captures and event.captured is not fake.captures[self.handle]:
                    fake.not_captured(self.handle, "waiting for an event from outside")

            def __del__(self):
                fake.log.append("free stream")
                fake.live.discard(f"stream {self.handle}")

        class Event:
            def __init__(self, flags):
                fake.need_context("Event")
                self.flags, self.captured = flags, None

            def record(self, stream=None):
                fake.log.append("record" if stream is not None else "record default stream")
                self.captured = None if stream is None else fake.captures.get(stream.handle)

            def synchronize(self):
                if self.captured is not None:
                    raise Error("cuEventSynchronize failed: the event was recorded in a capture")
                fake.log.append("wait")

            def time_since(self, earlier):
                return 1.5

            def __del__(self):
                fake.log.append("free event")

        class Allocation:
            def __init__(self, size_bytes):
                fake.wait_for_device("cuMemAlloc")
                if size_bytes > fake.free_bytes:
                    raise OutOfMemoryError("out of memory")
                self.address = 4096 * (1 + len(fake.memory))
                fake.memory[self.address] = np.zeros(size_bytes, np.uint8)
                fake.live.add(f"memory {self.address}")

            def __int__(self):
                return self.address

            def free(self):
                fake.wait_for_device("free")
                fake.log.append(f"free {self.address}")
                fake.live.remove(f"memory {self.address}")

        class Pinned:
            def __init__(self, shape, dtype):
                fake.wait_for_device("cuMemAllocHost")
                self.array = np.empty(shape, dtype)
                self.__array_interface__ = self.array.__array_interface__

            def free(self):
                fake.wait_for_device("free pinned")
                fake.log.append("free pinned")

        self.event_flags = Flags
        self.Context, self.Device, self.Stream, self.Event = Context, Device, Stream, Event
        self.mem_alloc = Allocation
        self.pagelocked_empty = lambda shape, dtype: np.asarray(Pinned(shape, dtype))  # .base is the Pinned

    def init(self):
        self.log.append("init")

    def mem_get_info(self):
        return self.free_bytes, 1 << 30

    def memcpy_htod_async(self, pointer, source, stream):
        self.need_context("memcpy_htod_async")
        there = self.memory[pointer]
        self.put(stream.handle, lambda: np.copyto(there, np.ascontiguousarray(source).view(np.uint8).ravel()))

    def memcpy_dtoh_async(self, target, pointer, stream):
        self.need_context("memcpy_dtoh_async")
        there = self.memory[pointer]
        self.put(stream.handle, lambda: np.copyto(target.reshape(-1).view(np.uint8), there))

    def rows(self, pointer):
        """The bytes of an allocation from this address on."""
        start = max(address for address in self.memory if address <= pointer)
        return self.memory[start][pointer - start :]

    def put(self, handle, operation):
        """What a copy or a kernel's launch does on a stream."""
        self.need_context("a launch")
        if handle not in self.captures:
            operation()
        elif not self.captures[handle].broken:
            self.captures[handle].operations.append(operation)

    def not_captured(self, handle, call):
        """For what a stream in a capture must not be asked: it breaks the capture."""
        if handle in self.captures:
            self.captures[handle].broken = True
            raise Error(f"{call} failed: operation not permitted when stream is capturing")

    def wait_for_device(self, call):
        """For what waits for all streams: it breaks every capture, whichever thread makes it."""
        self.need_context(call)
        for handle in list(self.captures):
            self.not_captured(handle, call)

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Stand where engine/device.py looks for pycuda and for cuda.bindings."""
        package = ModuleType("pycuda")
        package.driver = self  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "pycuda", package)
        monkeypatch.setitem(sys.modules, "pycuda.driver", self)
        monkeypatch.setattr("engine.device._bindings", lambda: self.bindings)

    def contexts(self):
        """This thread's contexts as pycuda knows them; the driver has the last of them on its own stack, `current`."""
        return self.stack.__dict__.setdefault("contexts", [])

    def current(self):
        return self.stack.__dict__.setdefault("current", [])

    def need_context(self, call):
        assert self.contexts(), f"{call} without a current context"
