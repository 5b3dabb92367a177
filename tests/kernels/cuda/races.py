"""A race detector for the simulator: who touched which element between two barriers, and with what.

Between two barriers of a block or of a warp, an element that one thread writes may not be touched by another, unless
all of them use atomics; shuffles and votes are no barriers. Shared memory may not be read before it was written, and
all threads of a block wait at the same barriers. Blocks run one after another in the simulator, so races between blocks
are not seen.
"""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from numba.cuda.simulator import kernel as simulated_kernel
from numba.cuda.simulator import kernelapi
from numba.cuda.simulator.cudadrv import devicearray

from kernels.cuda import _cuda

ATOMICS = ("add", "max", "min", "or_")


@dataclass
class _Element:
    """What was done to one element since the last barrier."""

    epoch: int = -1
    readers: set[int] = field(default_factory=set)
    writers: set[int] = field(default_factory=set)
    updaters: set[int] = field(default_factory=set)  # by atomics


@dataclass
class Races:
    """All findings, as sentences; empty if there are none. `accesses`: how many memory accesses were checked."""

    found: set[str] = field(default_factory=set)
    accesses: int = 0
    without: dict[str, set[str]] = field(default_factory=dict)  # by the line of a barrier: races if it were not there
    _elements: dict[tuple[str, int], _Element] = field(default_factory=dict)  # by line left out, or "", and address
    _written: set[int] = field(default_factory=set)
    _shared: list[np.ndarray[Any, Any]] = field(default_factory=list)  # so that no other array gets their addresses
    _spans: list[tuple[int, int]] = field(default_factory=list)
    _barriers: dict[int, str] = field(default_factory=dict)
    _lock: Any = field(default_factory=threading.Lock)

    def new_block(self) -> None:
        self._elements.clear()
        self._barriers.clear()
        self._written.clear()

    def add_shared(self, array: np.ndarray[Any, Any]) -> None:
        self._shared.append(array)
        self._spans.append((array.ctypes.data, array.ctypes.data + array.nbytes))

    def note_barrier(self, number: int, line: str) -> None:
        with self._lock:
            if self._barriers.setdefault(number, line) != line:
                self.found.add(f"{line}: some threads wait here, others at {self._barriers[number]}")

    def note(self, array: np.ndarray[Any, Any], index: Any, kind: str) -> None:
        thread = threading.current_thread()
        if not isinstance(thread, simulated_kernel.BlockThread):
            return
        if kind != "read" and getattr(thread, "in_atomic", False):
            kind = "update"
        elif getattr(thread, "in_atomic", False):
            return  # an atomic's own look at the old value
        position = index if isinstance(index, tuple) else (index,)
        address = array.ctypes.data + sum(int(i) * step for i, step in zip(position, array.strides, strict=True))
        passed: Counter[str] = getattr(thread, "passed", None) or Counter()
        with self._lock:
            self.accesses += 1
            self._check(address, thread.thread_id, passed.total(), kind)
            for line, races in self.without.items():
                self._note_race("", races, line, address, thread.thread_id, passed.total() - passed[line], kind)

    def _check(self, address: int, thread: int, epoch: int, kind: str) -> None:
        if kind == "read" and address not in self._written and any(a <= address < b for a, b in self._spans):
            self.found.add(f"{_line()}: reads shared memory that nobody wrote")
        if kind != "read":
            self._written.add(address)
        self._note_race(f"{_line()}: ", self.found, "", address, thread, epoch, kind)

    def _note_race(  # noqa: PLR0917 - called for each access
        self, where: str, found: set[str], left_out: str, address: int, thread: int, epoch: int, kind: str
    ) -> None:
        element = self._elements.setdefault((left_out, address), _Element())
        if element.epoch != epoch:
            self._elements[left_out, address] = element = _Element(epoch)
        others = {
            "read": element.writers | element.updaters,
            "write": element.readers | element.writers | element.updaters,
            "update": element.readers | element.writers,
        }[kind] - {thread}
        if others:
            found.add(f"{where}a {kind} races")
        {"read": element.readers, "write": element.writers, "update": element.updaters}[kind].add(thread)


@contextmanager
def watch(barriers: Iterable[str] = ()) -> Iterator[Races]:
    """Watches every kernel that the simulator runs inside, and their arrays in shared and global memory.

    barriers: lines ("group.py:12") of which is also watched what would race if the barrier there were left out.
    """
    races = Races(without={line: set() for line in barriers})
    allocation = threading.Lock()
    Array, Thread, Block = (
        devicearray.FakeWithinKernelCUDAArray,
        simulated_kernel.BlockThread,
        simulated_kernel.BlockManager,
    )
    get, put = Array.__getitem__, Array.__setitem__
    wait, run = Thread.syncthreads, Block.run

    def watched_get(self: Any, index: Any) -> Any:
        value = get(self, index)
        if not isinstance(value, Array):
            races.note(self._item._ary, index, "read")
        return value

    def watched_put(self: Any, index: Any, value: Any) -> None:
        races.note(self._item._ary, index, "write")
        put(self, index, value)

    def watched_shared(self: Any, shape: Any, dtype: Any, alignment: Any = None) -> Any:
        key = _caller()
        with allocation:
            if key not in self._allocations:
                self._allocations[key] = np.empty(shape, np.dtype(dtype))
                races.add_shared(self._allocations[key])
        return Array(devicearray.FakeCUDAArray(self._allocations[key]))

    def counted_wait(self: Any) -> None:
        self.waits = getattr(self, "waits", 0) + 1
        races.note_barrier(self.waits, _line())
        wait(self)
        if sys._getframe(1).f_code is not _cuda._of_warp.__code__:  # shuffles and votes order nothing in memory
            if not hasattr(self, "passed"):
                self.passed = Counter()
            self.passed[_line()] += 1

    def separate_run(self: Any, *arguments: Any) -> None:
        races.new_block()
        run(self, *arguments)

    def atomic(name: str) -> Any:
        plain = getattr(kernelapi.FakeCUDAAtomic, name)

        def watched(self: Any, *arguments: Any) -> Any:
            thread: Any = threading.current_thread()
            thread.in_atomic = True
            try:
                return plain(self, *arguments)
            finally:
                thread.in_atomic = False

        return watched

    with (
        mock.patch.object(Array, "__getitem__", watched_get),
        mock.patch.object(Array, "__setitem__", watched_put),
        mock.patch.object(kernelapi.FakeCUDAShared, "array", watched_shared),
        mock.patch.object(Thread, "syncthreads", counted_wait),
        mock.patch.object(Block, "run", separate_run),
        mock.patch.multiple(kernelapi.FakeCUDAAtomic, **{name: atomic(name) for name in ATOMICS}),
    ):
        yield races


def _caller() -> tuple[str, int]:
    """File and line of the kernel that asks for a shared array."""
    frame = sys._getframe(2)
    return frame.f_code.co_filename, frame.f_lineno


def _line() -> str:
    """File and line of the kernel: the innermost frame that is neither here nor the simulator's nor `_cuda`'s."""
    frame = sys._getframe(1)
    while frame.f_back is not None and (
        "simulator/" in frame.f_code.co_filename or frame.f_code.co_filename in (__file__, _cuda.__file__)
    ):
        frame = frame.f_back
    return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
