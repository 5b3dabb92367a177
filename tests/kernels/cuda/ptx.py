"""Every kernel through the real compilers, without a GPU: PTX by NVVM, machine code by ptxas, and what it takes to run.

    python -m tests.kernels.cuda.ptx > new.md && mv new.md benchmarks/kernels_ptx.md

writes the first part of the table and keeps the last; test_ptx.py compiles the same kernels and bounds them.
"""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numba_cuda  # type: ignore[import-untyped]
from numba import types
from numba.cuda import compile_ptx

from kernels.cuda._cuda import WARP
from kernels.cuda.assignment import match_kernel
from kernels.cuda.filter import THREADS as FILTER_THREADS
from kernels.cuda.filter import filter_kernel
from kernels.cuda.group import group_kernel
from kernels.cuda.peaks import peaks_kernel
from kernels.cuda.preprocess import THREADS as PREPROCESS_THREADS
from kernels.cuda.preprocess import warp_frames
from kernels.cuda.preprocess_nv12 import warp_nv12
from kernels.cuda.refine import refine_kernel
from kernels.cuda.select import THREADS as SELECT_THREADS
from kernels.cuda.select import select_kernel

TABLE = Path(__file__).parents[3] / "benchmarks" / "kernels_ptx.md"
EXECUTED = "## What they execute"
TARGETS = ((7, 5), (8, 6), (8, 9), (9, 0), (12, 0))


@dataclass(frozen=True)
class Multiprocessor:
    """What one multiprocessor holds (CUDA programming guide, technical specifications by compute capability)."""

    threads: int
    blocks: int
    shared_bytes: int
    reserved_bytes: int  # of shared memory, taken by the system for each block
    registers: int = 65536


MULTIPROCESSORS = {
    (7, 5): Multiprocessor(1024, 16, 64 * 1024, 0),
    (8, 6): Multiprocessor(1536, 16, 100 * 1024, 1024),
    (8, 9): Multiprocessor(1536, 24, 100 * 1024, 1024),
    (9, 0): Multiprocessor(2048, 32, 228 * 1024, 1024),
    (12, 0): Multiprocessor(1536, 24, 100 * 1024, 1024),
}

FLAT = types.float32[::1]
HALVES = types.float16[::1]
BYTES = types.uint8[::1]
FLOATS = types.float32[:, ::1]
COUNTS = types.int32[::1]
INTS = types.int32[:, ::1]
SEARCHES = types.int64[::1]
KEYS = types.int64[:, ::1]
SIZES = types.UniTuple(types.int32, 3)
PAIR = types.UniTuple(types.float32, 2)


@dataclass(frozen=True)
class Case:
    """One kernel with the types it is launched with."""

    name: str
    kernel: Any
    signature: tuple[Any, ...]
    threads: int


def _decode_cases(
    maps: Any, suffix: str, *, T: int = 1, max_people: int = 30, project: bool = True, K: int = 17
) -> Iterator[Case]:
    yield Case(
        f"peaks{suffix}",
        peaks_kernel(2, T == 2, project),
        (maps, maps, SIZES, INTS, types.float32, KEYS, COUNTS, FLAT),
        WARP,
    )
    yield Case(
        f"select{suffix}",
        select_kernel(max_people, T == 2, project, True),
        (maps, maps, SIZES, INTS, KEYS, COUNTS, FLAT, INTS),
        SELECT_THREADS,
    )
    yield Case(
        f"group{suffix}",
        group_kernel(max_people, K, T == 2),
        (FLAT, INTS, INTS, PAIR, FLAT, COUNTS, SEARCHES, FLAT),
        WARP,
    )
    yield Case(
        f"refine{suffix}",
        refine_kernel(max_people, K, T == 2, project),
        (maps, maps, SIZES, INTS, FLAT, FLAT, COUNTS, SEARCHES, FLAT),
        WARP,
    )
    yield Case(
        f"filter{suffix}",
        filter_kernel(max_people, K),
        (FLAT, FLAT, PAIR, FLAT),
        FILTER_THREADS,
    )


@functools.cache
def main_cases() -> tuple[Case, ...]:
    """The kernels of a live frame: FP32 maps, no mirror, 30 people, project; preprocess, one of the two, into FP16."""
    return (
        _preprocess_case("preprocess", types.float16),
        _nv12_case("preprocess_nv12", types.float16),
        *_decode_cases(FLAT, ""),
    )


@functools.cache
def other_cases() -> tuple[Case, ...]:
    """The rest of what options ask for: FP16 maps, the mirrored frame, 128 people, the heatmaps' own resolution."""
    mirrored = _decode_cases(FLAT, ", T = 2", T=2)
    many = _decode_cases(HALVES, ", FP16, 128 people", max_people=128)
    coarse = _decode_cases(HALVES, ", FP16, T = 2, not projected", T=2, project=False)
    return (
        _preprocess_case("preprocess, FP32", types.float32),
        _nv12_case("preprocess_nv12, FP32", types.float32),
        *(case for case in mirrored if not case.name.startswith("filter")),
        *many,
        *(case for case in coarse if not case.name.startswith(("filter", "group"))),
        Case("match", match_kernel(128), (FLOATS, FLAT, COUNTS), WARP),
    )


def _preprocess_case(name: str, dtype: Any) -> Case:
    three = types.UniTuple(types.float32, 3)
    return Case(
        name,
        warp_frames,
        (BYTES, dtype[::1], types.UniTuple(types.int32, 4), three, three, three, types.boolean),
        prod(PREPROCESS_THREADS),
    )


def _nv12_case(name: str, dtype: Any) -> Case:
    three, six = (types.UniTuple(types.float32, count) for count in (3, 6))
    return Case(
        name,
        warp_nv12,
        (BYTES, dtype[::1], types.UniTuple(types.int32, 5), three, six, six, types.boolean),
        prod(PREPROCESS_THREADS),
    )


@dataclass(frozen=True)
class Compiled:
    """What ptxas reports of one kernel."""

    ptx: str
    registers: int
    shared_bytes: int
    stack_bytes: int
    spill_bytes: int

    def occupancy(self, threads: int, target: tuple[int, int]) -> float:
        """The share of a multiprocessor's threads that blocks of `threads` can fill."""
        m = MULTIPROCESSORS[target]
        warps = -(-threads // 32)
        registers = -(-self.registers * 32 // 256) * 256 * warps  # given out in units of 256 a warp
        shared = -(-(self.shared_bytes + m.reserved_bytes) // 128) * 128
        blocks = min(
            m.blocks, m.threads // threads, m.registers // registers, m.shared_bytes // shared if shared else m.blocks
        )
        return blocks * threads / m.threads


def ptxas() -> str | None:
    """The path of ptxas: the wheel's, which is as new as the PTX, else the toolkit's."""
    site = Path(numba_cuda.__file__).parent.parent
    found = sorted(site.glob("nvidia/**/bin/ptxas"))
    return str(found[-1]) if found else shutil.which("ptxas", path="/usr/local/cuda/bin") or shutil.which("ptxas")


@functools.cache
def compile_case(case: Case, target: tuple[int, int]) -> Compiled:
    """PTX and ptxas' report of a kernel. Raises RuntimeError with ptxas' message if it fails."""
    # Numba asks the current device for its capability before it compiles a device function; there is none here.
    device = SimpleNamespace(compute_capability=target)
    with mock.patch("numba.cuda.dispatcher.get_current_device", lambda: device):
        ptx, _ = compile_ptx(case.kernel.py_func, case.signature, cc=target)
    program = ptxas()
    if program is None:
        raise RuntimeError("no ptxas: pip install nvidia-cuda-nvcc")
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "kernel.ptx"
        source.write_text(readable_by(program, ptx))
        command = [
            program,
            f"-arch=sm_{target[0]}{target[1]}",
            "-v",
            "-o",
            str(source.with_suffix(".cubin")),
            str(source),
        ]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode:
        raise RuntimeError(f"ptxas failed on {case.name} for {target}: {run.stderr.strip()[:500]}")

    def number(pattern: str) -> int:
        found = re.search(pattern, run.stderr)
        return int(found[1]) if found else 0

    return Compiled(
        ptx,
        number(r"Used (\d+) registers"),
        number(r"(\d+) bytes smem"),
        number(r"(\d+) bytes stack frame"),
        number(r"(\d+) bytes spill stores") + number(r"(\d+) bytes spill loads"),
    )


def readable_by(program: str, ptx: str) -> str:
    """The PTX with its version lowered to what an older ptxas reads: nothing newer is used."""
    major, minor = release_in(version_of(program))
    written = re.search(r"^\.version (\d+)\.(\d+)", ptx, re.MULTILINE)
    assert written
    newest = (major - 4, minor)  # CUDA 13.x reads PTX 9.x
    if (int(written[1]), int(written[2])) > newest:
        ptx = ptx.replace(written[0], f".version {newest[0]}.{newest[1]}", 1)
    return ptx


def compilers() -> str:
    """The versions of the compilers: others may use a few registers more or fewer."""
    program = ptxas()
    assert program
    nvvm, assembler = release_in(compile_case(main_cases()[0], TARGETS[0]).ptx), release_in(version_of(program))
    return "NVVM of CUDA {}.{}, ptxas of CUDA {}.{}".format(*nvvm, *assembler)


def version_of(program: str) -> str:
    return subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout


def release_in(text: str) -> tuple[int, int]:
    """The CUDA release that a compiler names in its version, and NVVM in the PTX it writes."""
    found = re.search(r"release (\d+)\.(\d+)", text)
    assert found
    return int(found[1]), int(found[2])


def table() -> str:
    lines = [
        "# What the kernels take",
        "",
        "Registers of a thread, shared memory of a block, and theoretical occupancy of a multiprocessor, by compute",
        "capability: computed from ptxas' report, not measured. No kernel spills, has a stack frame or a float64",
        "instruction. `python -m tests.kernels.cuda.ptx` writes this file; tests/kernels/cuda/test_ptx.py holds it.",
        f"Compilers: {compilers()}.",
        "",
        "| kernel | threads | " + " | ".join(f"{a}.{b}" for a, b in TARGETS) + " | shared (bytes) |",
        "| --- | ---: |" + " --- |" * len(TARGETS) + " ---: |",
    ]
    for case in main_cases():
        built = {target: compile_case(case, target) for target in TARGETS}
        cells = [f"{c.registers} regs, {c.occupancy(case.threads, target):.0%}" for target, c in built.items()]
        lines.append(f"| {case.name} | {case.threads} | {' | '.join(cells)} | {built[TARGETS[-1]].shared_bytes} |")
    lines += [
        "",
        "`group` and `filter` run one block an image: there, the latency of one block counts, not occupancy. Blocks of",
        "one warp fill half of a multiprocessor at most, where it holds 32 blocks.",
        "",
        "Variants, compute capability 9.0:",
        "",
        "| kernel | threads | 9.0 | shared (bytes) |",
        "| --- | ---: | --- | ---: |",
    ]
    for case in other_cases():
        c = compile_case(case, (9, 0))
        used = f"{c.registers} regs, {c.occupancy(case.threads, (9, 0)):.0%}"
        lines.append(f"| {case.name} | {case.threads} | {used} | {c.shared_bytes} |")
    return "\n".join(lines) + "\n"


def executed() -> str:
    """The table's last part, which `benchmarks.ptx_on_host` counts: as it stands."""
    text = TABLE.read_text()
    return "\n" + text[text.index(EXECUTED) :]


if __name__ == "__main__":
    print(table() + executed(), end="")
