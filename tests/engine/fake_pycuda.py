"""A stand-in for pycuda.driver on a machine without a GPU: it checks that every call finds the context current."""

from __future__ import annotations

import sys
import threading
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest


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
                fake.need_context("synchronize")
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
                self.handle = 77
                fake.live.add("stream")

            def synchronize(self):
                fake.need_context("Stream.synchronize")

            def wait_for_event(self, event):
                fake.log.append("wait for event")

            def __del__(self):
                fake.log.append("free stream")
                fake.live.discard("stream")

        class Event:
            def __init__(self, flags):
                fake.need_context("Event")
                self.flags = flags

            def record(self, stream):
                fake.log.append("record")

            def synchronize(self):
                fake.log.append("wait")

            def time_since(self, earlier):
                return 1.5

            def __del__(self):
                fake.log.append("free event")

        class Allocation:
            def __init__(self, size_bytes):
                if size_bytes > fake.free_bytes:
                    raise OutOfMemoryError("out of memory")
                self.address = 4096 * (1 + len(fake.memory))
                fake.memory[self.address] = np.zeros(size_bytes, np.uint8)
                fake.live.add(f"memory {self.address}")

            def __int__(self):
                return self.address

            def free(self):
                fake.need_context("free")
                fake.log.append(f"free {self.address}")
                fake.live.remove(f"memory {self.address}")

        class Pinned:
            def __init__(self, shape, dtype):
                self.array = np.empty(shape, dtype)
                self.__array_interface__ = self.array.__array_interface__

            def free(self):
                fake.need_context("free pinned")
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
        self.memory[pointer][:] = np.ascontiguousarray(source).view(np.uint8).ravel()

    def memcpy_dtoh_async(self, target, pointer, stream):
        self.need_context("memcpy_dtoh_async")
        target.reshape(-1).view(np.uint8)[:] = self.memory[pointer]

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Stand where engine/device.py looks for pycuda, and for cuda.bindings' one call outside of graphs."""
        package, bindings = ModuleType("pycuda"), ModuleType("cuda.bindings.driver")
        package.driver = self  # type: ignore[attr-defined]
        bindings.CUresult = SimpleNamespace(CUDA_SUCCESS=0)  # type: ignore[attr-defined]
        bindings.cuCtxPopCurrent = lambda: (0, self.current().pop())  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "pycuda", package)
        monkeypatch.setitem(sys.modules, "pycuda.driver", self)
        monkeypatch.setattr("engine.device._bindings", lambda: bindings)

    def contexts(self):
        """This thread's contexts as pycuda knows them; the driver has the last of them on its own stack, `current`."""
        return self.stack.__dict__.setdefault("contexts", [])

    def current(self):
        return self.stack.__dict__.setdefault("current", [])

    def need_context(self, call):
        assert self.contexts(), f"{call} without a current context"
