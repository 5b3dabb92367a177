"""Compile translated kernels, launch them on the host, and count what the launches execute.

The compiler may not fuse products into sums (-ffp-contract=off): a kernel's float32 arithmetic is then exactly that
of PTX: rounded at each instruction, and fused only where PTX has `fma`.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.ptx_on_host.ptx import Entry, Instruction, parse
from benchmarks.ptx_on_host.translate import translate

SOURCE = Path(__file__).with_name("machine.c")
FLAGS = "-std=gnu11 -O1 -w -fPIC -shared -ffp-contract=off -frounding-math -fwrapv -fno-strict-aliasing"
SCALARS = {
    "f32": ctypes.c_float,
    "f64": ctypes.c_double,
    **{f"{kind}{size}": getattr(ctypes, f"c_uint{size}") for kind in "ub" for size in (8, 16, 32, 64)},
    **{f"s{size}": getattr(ctypes, f"c_int{size}") for size in (8, 16, 32, 64)},
}
SCHEDULERS, CLOCK_MHZ = 132 * 4, 1755  # of an H100: each scheduler issues one warp instruction per clock


class LaunchFailed(RuntimeError):
    """The kernel did something that is not allowed, such as waiting for threads that have ended."""


@dataclass(frozen=True)
class Counts:
    """What one launch executed. A visit of a basic block by a warp counts once, whichever of its lanes are active."""

    entry: Entry
    blocks: int
    warps: int
    visits: NDArray[np.float64]  # of each basic block, by warps
    chain_visits: NDArray[np.float64]  # likewise, by the warps that make up the chain
    barriers: int  # of the block with the most
    chain: float  # weight of the heaviest warp from barrier to barrier, in the block where that is largest
    mean_chain: float  # the same, in the mean over blocks

    @property
    def weights(self) -> NDArray[np.float64]:
        """Machine instructions that warps executed in each basic block."""
        return self.visits * _weights(self.entry)

    @property
    def total(self) -> float:
        return float(self.weights.sum())

    @property
    def wide_share(self) -> float:
        """The share of `total` that is 64-bit integer arithmetic."""
        wide = [sum(i.weight for i in block if i.is_wide_integer) for block in self.entry.blocks]
        return float(self.visits @ np.array(wide)) / self.total

    @property
    def issue_us(self) -> float:
        """Least time in which an H100 can issue all of it, if the work is spread evenly."""
        return self.total / (SCHEDULERS * CLOCK_MHZ)

    @property
    def chain_us(self) -> float:
        """Least time of the slowest block, if every instruction is ready when the one before it is issued."""
        return self.chain / CLOCK_MHZ

    def hottest(self, count: int) -> list[tuple[int, float, list[Instruction]]]:
        """The basic blocks of the highest weight in the longest chain: number, weight there, instructions."""
        weights = self.chain_visits * _weights(self.entry)
        order = np.argsort(-weights, kind="stable")[:count]
        return [(int(b), float(weights[b]), self.entry.blocks[b]) for b in order]


class Program:
    """A kernel ready to run on the host."""

    def __init__(self, ptx: str) -> None:
        """Raises NotUnderstood for PTX that is not supported, RuntimeError if the C compiler fails."""
        translation = translate(parse(ptx))
        self.entry, self.approximate = translation.entry, translation.approximate
        self._library = _build(translation.code)
        self._library.launch.restype = ctypes.c_char_p

    def launch(self, grid: Sequence[int], block: Sequence[int], arguments: Sequence[Any], seed: int = 0) -> Counts:
        """Run one grid. arguments, as the kernel takes them: NumPy arrays, scalars, and tuples of these.

        seed: 0 runs blocks, warps and lanes in order, another number shuffles them (warps anew at each barrier).
        Raises LaunchFailed if the kernel does something that is not allowed.
        """
        blocks = len(self.entry.blocks)
        values = list(_flat(arguments))
        if len(values) != len(self.entry.parameters):
            raise TypeError(f"{len(values)} values for the {len(self.entry.parameters)} parameters of the kernel")
        held = [SCALARS[type_](value) for value, (type_, _) in zip(values, self.entry.parameters, strict=True)]
        pointers = (ctypes.c_void_p * len(held))(*(ctypes.addressof(value) for value in held))
        visits, chain_visits, summary = (
            (ctypes.c_double * blocks)(),
            (ctypes.c_double * blocks)(),
            (ctypes.c_double * 3)(),
        )
        failure = self._library.launch(
            (ctypes.c_uint32 * 3)(*grid),
            (ctypes.c_uint32 * 3)(*block),
            pointers,
            ctypes.c_uint64(seed),
            (ctypes.c_double * blocks)(*_weights(self.entry)),
            visits,
            chain_visits,
            summary,
        )
        if failure:
            raise LaunchFailed(f"{self.entry.name}: {failure.decode()}")
        launched = prod(grid)
        return Counts(
            self.entry,
            launched,
            launched * -(-prod(block) // 32),
            np.array(visits),
            np.array(chain_visits),
            int(summary[0]),
            summary[1],
            summary[2] / launched,
        )


def _weights(entry: Entry) -> NDArray[np.float64]:
    return np.array([sum(instruction.weight for instruction in block) for block in entry.blocks])


def _flat(arguments: Sequence[Any]) -> list[Any]:
    """Arguments as Numba passes them to a kernel; an array is two owners, size, itemsize, address, shape, strides."""
    flat: list[Any] = []
    for argument in arguments:
        if isinstance(argument, np.ndarray):
            flat += [0, 0, argument.size, argument.itemsize, argument.ctypes.data, *argument.shape, *argument.strides]
        elif isinstance(argument, tuple):
            flat += _flat(argument)
        else:
            flat.append(argument.item() if isinstance(argument, np.generic) else argument)
    return flat


def _build(code: str) -> ctypes.CDLL:
    with tempfile.TemporaryDirectory() as folder:
        kernel, library = Path(folder) / "kernel.h", Path(folder) / "kernel.so"
        kernel.write_text(code)
        compiler = os.environ.get("CC", "cc").split()
        command = [*compiler, *FLAGS.split(), f'-DKERNEL="{kernel}"', "-o", str(library), str(SOURCE), "-lm"]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        if run.returncode:
            raise RuntimeError(f"{compiler[0]} failed: {run.stderr.strip()[:2000]}")
        return ctypes.CDLL(str(library))
