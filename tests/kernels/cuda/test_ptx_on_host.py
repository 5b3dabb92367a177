"""The kernels' own PTX, run on the host with real blocks: people of `kernels.cpu` to the bit, in any order of warps."""

from __future__ import annotations

import os
import shutil
import sys
from typing import Any

import numpy as np
import pytest

from benchmarks.ptx_on_host.kernels import Chain, same_bits
from benchmarks.ptx_on_host.machine import Program
from kernels.cuda import unpack_people
from kernels.options import DecodeOptions
from tests.kernels.cuda.crowds import draw_crowd

COMPILER = os.environ.get("CC", "cc").split()[0]
pytestmark = [
    pytest.mark.skipif(shutil.which(COMPILER) is None, reason=f"no C compiler: {COMPILER} is not found"),
    pytest.mark.skipif(sys.platform != "linux", reason="runs threads as coroutines of Linux's C library"),
]

INPUT_HW = (64, 96)
OPTIONS = DecodeOptions(min_score=0.2, min_joint=0.1, duplicate_oks=0.7)
PROGRAMS: dict[Any, Program] = {}  # compiled once for all chains
ORDERS = (0, 1, 2)  # of blocks, warps and lanes: as they stand, and two that are drawn


@pytest.fixture(scope="module", params=[1, 2], ids=["T=1", "T=2"])
def chains(request) -> dict[int, Chain]:
    """One for each number of frames at once; the kernels are the same."""
    return {n: Chain(INPUT_HW, request.param == 2, OPTIONS, frames=n, programs=PROGRAMS) for n in (1, 3)}


@pytest.mark.parametrize("people", [1, 10, 30])
@pytest.mark.parametrize("frames", [1, 3])
def test_people_are_those_of_the_host_to_the_bit(chains, frames, people):
    chain = chains[frames]
    rng = np.random.default_rng(people)
    map_hw = (INPUT_HW[0] // 2, INPUT_HW[1] // 2)
    crowds = [draw_crowd(rng, people, map_hw, T=2 if chain.flip else 1) for _ in range(frames)]
    heatmaps, tags = (np.stack(maps) for maps in zip(*crowds, strict=True))
    wanted = chain.decode_on_cpu(heatmaps, tags)
    assert all(len(scores) > 0 for _, (_, scores) in wanted)
    for order in ORDERS:
        chain.shuffle(order)
        found = chain.decode(heatmaps, tags)
        for n in range(frames):
            for stage in (0, 1):  # before the output filter and after it
                assert same_bits(found[n][stage], wanted[n][stage]), f"frame {n}, order {order}"


def test_no_kernel_waits_for_more_than_its_warp_but_select_and_filter(chains):
    chain = chains[1]
    chain.decode(*(np.zeros((1, 2 if chain.flip else 1, 17, *hw), np.float32) for hw in ((64, 96), (32, 48))))
    waits = {name: kernel.counts.barriers for name, kernel in chain.kernels.items() if kernel.counts is not None}
    assert {name for name, barriers in waits.items() if barriers > 0} <= {"select", "filter"}


def test_the_frame_is_letterboxed_as_on_the_host(chains):
    chain = chains[1]
    frame = np.random.default_rng(0).integers(0, 256, (90, 130, 3), dtype=np.uint8)
    images = chain.preprocess(frame)
    np.testing.assert_allclose(images[0], chain.preprocess_on_cpu(frame), atol=2e-3, rtol=0)
    if chain.flip:
        np.testing.assert_array_equal(images[1], images[0][..., ::-1])


@pytest.mark.parametrize("flip", [False, True])
def test_a_decoders_frame_has_the_bits_of_the_host(flip):
    chain = Chain(INPUT_HW, flip, OPTIONS, nv12=True, programs=PROGRAMS)
    frame = np.random.default_rng(0).integers(0, 256, (90 * 3 // 2, 130), dtype=np.uint8)
    wanted = chain.preprocess_on_cpu(frame).astype(np.float16)
    for order in ORDERS:
        chain.shuffle(order)
        images = chain.preprocess(frame)
        assert images[0].tobytes() == wanted.tobytes()
        if flip:
            np.testing.assert_array_equal(images[1], images[0][..., ::-1])


@pytest.mark.parametrize("flip", [False, True])
def test_tags_of_two_numbers(flip):
    chain = Chain(INPUT_HW, flip, OPTIONS, tag_dims=2, programs=PROGRAMS)
    maps = draw_crowd(np.random.default_rng(7), 10, (INPUT_HW[0] // 2, INPUT_HW[1] // 2), T=2 if flip else 1, D=2)
    heatmaps, tags = (array[None] for array in maps)
    wanted = chain.decode_on_cpu(heatmaps, tags)[0]
    found = chain.decode(heatmaps, tags)[0]
    assert len(wanted[0][1]) > 5
    assert all(same_bits(found[stage], wanted[stage]) for stage in (0, 1))


def test_one_array_holds_the_people(chains):
    chain = chains[3]
    rng = np.random.default_rng(1)
    map_hw = (INPUT_HW[0] // 2, INPUT_HW[1] // 2)
    crowds = [draw_crowd(rng, people, map_hw, T=2 if chain.flip else 1) for people in (1, 5, 9)]
    after = [result[1] for result in chain.decode(*(np.stack(maps) for maps in zip(*crowds, strict=True)))]
    keypoints, scores, count = unpack_people(np.array(chain.workspace.packed), (3, OPTIONS.max_people, 17))
    assert len({len(own) for _, own in after}) > 1
    for n, people in enumerate(after):
        assert same_bits((keypoints[n, : count[n]], scores[n, : count[n]]), people)
