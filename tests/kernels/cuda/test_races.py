"""No kernel has a race within a block that the simulator can show; on a GPU, compute-sanitizer looks for others."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from kernels.cuda import Blocks, Workspace, assignment, decode, filter, group, peaks, refine, select
from kernels.cuda._cuda import cuda
from kernels.options import DecodeOptions
from tests.kernels.cuda.every_kernel import run_every_kernel
from tests.kernels.cuda.races import watch
from tests.kernels.cuda.simulator import BLOCKS, on_device

pytestmark = [pytest.mark.sim]


def test_no_thread_touches_what_another_writes(monkeypatch):
    monkeypatch.setattr("kernels.cuda.assignment.WARP", 8)
    options = DecodeOptions(max_people=4, duplicate_oks=0.9, min_joint=0.1, joint_order=(2, 0, 1), flip_order=(1, 0, 2))
    with watch() as races:
        assert run_every_kernel((6, 6), 4, options, K=3, blocks=BLOCKS, sides=6) > 0
    assert races.accesses > 10_000
    assert races.found == set()


def barriers_of(*modules):
    """The lines of every barrier of these kernels."""
    for module in modules:
        path = Path(module.__file__)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if re.search(r"(warp_barrier|cuda\.syncthreads\w*)\(", line):
                yield f"{path.name}:{number}"


def test_blocks_of_true_size_need_every_barrier():
    """Warps of 32 lanes; of `filter` two, not sixteen, since each thread is one of Python's.

    `select` has one warp, not four: a joint must have more peaks than threads for its last barrier to matter. And they
    must come weakest first, so that later ones replace earlier ones: `peaks` gives them in whichever order its threads
    find them.
    """
    barriers = set(barriers_of(assignment, filter, group, peaks, refine, select))
    options = DecodeOptions(max_people=4, duplicate_oks=0.05, min_joint=0.1, joint_order=(1, 0), threshold=0.05)
    rng = np.random.default_rng(3)
    heatmaps = rng.uniform(0, 1, (1, 2, 16, 16)).astype(np.float32)
    tags = rng.normal(0, 1, (1, 2, 8, 8)).astype(np.float32)
    workspace = Workspace(heatmaps.shape, options, blocks=Blocks(select=32, filter=64))
    with watch(barriers) as races:
        result = decode(on_device(heatmaps), on_device(tags), options, workspace)
        rising = np.arange(1, 1 + workspace.keys.size) << 32 | 0xFFFFFFFF  # values above, and cell 0 of the map below
        workspace.keys.copy_to_device(rising.reshape(workspace.keys.shape))
        workspace.counts.copy_to_device(np.full(workspace.counts.shape, 3 * 32, workspace.counts.dtype))
        chosen = {name: launch for name, *launch in workspace.launches(on_device(heatmaps), on_device(tags), 0)}
        kernel, arguments = chosen["select"]
        kernel(*arguments)
    assert int(result[2].copy_to_host()) > 0
    assert races.found == set()
    assert {line for line in barriers if not races.without[line]} == set(), "barriers that nothing needs"


@cuda.jit
def _careless(values, barrier):
    """Thread t reads what thread t + 1 wrote, with or without a barrier in between."""
    shared = cuda.shared.array(4, np.int32)
    t = cuda.threadIdx.x
    shared[t] = t
    if barrier:
        cuda.syncthreads()
    values[t] = shared[(t + 1) % 4]


@cuda.jit
def _scattered():
    """Even threads wait at one barrier, odd ones at another."""
    if cuda.threadIdx.x % 2:
        cuda.syncthreads()
    else:
        cuda.syncthreads()


@cuda.jit
def _hasty(values):
    """Reads shared memory that nobody wrote."""
    shared = cuda.shared.array(4, np.int32)
    values[cuda.threadIdx.x] = shared[cuda.threadIdx.x]


def test_the_watch_sees_races():
    values = on_device(np.zeros(4, np.int32))
    with watch() as races:
        _careless[1, 4](values, True)
    assert races.found == set() and races.accesses == 12
    with watch() as races:
        _careless[1, 4](values, False)
    assert any("race" in found for found in races.found)
    with watch() as races:
        _scattered[1, 4]()
    assert any("some threads wait" in found for found in races.found)
    with watch() as races:
        _hasty[1, 4](values)
    assert any("nobody wrote" in found for found in races.found)
