"""Hand-made PTX on the host: what a warp's lanes give each other, what is refused, and what is counted."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pytest

from benchmarks.ptx_on_host.machine import LaunchFailed, Program
from benchmarks.ptx_on_host.ptx import NotUnderstood

COMPILER = os.environ.get("CC", "cc").split()[0]
pytestmark = pytest.mark.skipif(shutil.which(COMPILER) is None, reason=f"no C compiler: {COMPILER} is not found")

FRAME = """
.version 8.0
.target sm_90
.address_size 64
SHARED
.visible .entry probe(
    .param .u64 out
)
{
    .reg .pred %p<9>;
    .reg .b32 %r<20>;
    .reg .b64 %rd<9>;
    mov.u32 %r1, %tid.x;
    ld.param.u64 %rd1, [out];
    cvta.to.global.u64 %rd2, %rd1;
    mul.wide.u32 %rd3, %r1, 4;
    add.s64 %rd4, %rd2, %rd3;
BODY
    st.global.u32 [%rd4], %r9;
    ret;
}
"""


def run(body, threads=32, shared="", seed=0):
    """What each thread leaves in %r9, and the counts. %r1 is the thread."""
    program = Program(FRAME.replace("BODY", body).replace("SHARED", shared))
    out = np.zeros(threads, np.uint32)
    counts = program.launch((1, 1, 1), (threads, 1, 1), [np.uint64(out.ctypes.data)], seed)
    return out, counts


LANES = np.arange(32)


@pytest.mark.parametrize(
    ("mode", "b", "limits", "wanted"),
    [
        ("bfly", 5, 31, LANES ^ 5),
        ("idx", 7, 31, np.full(32, 7)),
        ("up", 3, 0, np.maximum(LANES - 3, np.where(LANES < 3, LANES, 0))),
        ("down", 3, 31, np.where(LANES + 3 > 31, LANES, LANES + 3)),
        ("down", 1, 31 | 24 << 8, np.where(LANES % 8 == 7, LANES, LANES + 1)),  # segments of eight lanes
    ],
)
@pytest.mark.parametrize("seed", [0, 3])
def test_a_shuffle_gives_the_other_lanes_value(mode, b, limits, wanted, seed):
    body = f"""
    mul.lo.s32 %r2, %r1, 10;
    shfl.sync.{mode}.b32 %r9|%p1, %r2, {b}, {limits}, -1;
    """
    found, _ = run(body, seed=seed)
    np.testing.assert_array_equal(found, 10 * wanted)


def test_a_shuffle_says_whether_the_lane_was_in_range():
    body = """
    shfl.sync.down.b32 %r2|%p1, %r1, 4, 31, -1;
    selp.b32 %r9, 1, 0, %p1;
    """
    np.testing.assert_array_equal(run(body)[0], LANES + 4 <= 31)


def test_five_exchanges_give_each_warp_its_own_maximum():
    steps = "".join(
        f"shfl.sync.bfly.b32 %r3|%p1, %r2, {s}, 31, -1;\nmax.s32 %r2, %r2, %r3;\n" for s in (16, 8, 4, 2, 1)
    )
    found, counts = run(f"mov.u32 %r2, %r1;\n{steps}mov.u32 %r9, %r2;", threads=96)
    np.testing.assert_array_equal(found, np.repeat([31, 63, 95], 32))
    assert counts.barriers == 0 and counts.warps == 3


@pytest.mark.parametrize("seed", [0, 3])
def test_a_reduction_gives_every_lane_the_least_or_the_greatest(seed):
    lanes = "sub.s32 %r2, %r1, 5;\n"  # -5 to 26; as unsigned numbers, the first five are the greatest
    for operation, wanted in (("min.s32", -5), ("max.s32", 26), ("min.u32", 0), ("max.u32", -1)):
        found, counts = run(f"{lanes}redux.sync.{operation} %r9, %r2, -1;", seed=seed)
        assert set(found.view(np.int32)) == {wanted}
    weight = sum(instruction.weight for block in counts.entry.blocks for instruction in block)
    plain = run(f"{lanes}mov.u32 %r9, %r2;")[1].entry.blocks
    assert weight == pytest.approx(sum(i.weight for block in plain for i in block) - 0.3 + 2)
    some = "setp.gt.u32 %p1, %r1, 15;\n@%p1 bra END;\nredux.sync.min.u32 %r9, %r1, -1;\nEND:\n"
    with pytest.raises(LaunchFailed, match="wait for others that have ended"):
        run(some)


def test_votes_and_matches():
    odd = "and.b32 %r2, %r1, 1;\nsetp.eq.s32 %p1, %r2, 1;\n"
    assert set(run(odd + "vote.sync.ballot.b32 %r9, %p1, -1;")[0]) == {0xAAAAAAAA}
    assert set(run(odd + "vote.sync.any.pred %p2, %p1, -1;\nselp.b32 %r9, 1, 0, %p2;")[0]) == {1}
    assert set(run(odd + "vote.sync.all.pred %p2, %p1, -1;\nselp.b32 %r9, 1, 0, %p2;")[0]) == {0}
    found, _ = run("and.b32 %r2, %r1, 3;\nmatch.any.sync.b32 %r9, %r2, -1;")
    np.testing.assert_array_equal(found, [0x11111111 << (lane & 3) for lane in LANES])


THROUGH_SHARED = """
    shl.b32 %r2, %r1, 2;
    cvt.u64.u32 %rd5, %r2;
    mov.u64 %rd6, table;
    add.s64 %rd7, %rd6, %rd5;
    st.shared.u32 [%rd7], %r1;
    BARRIER
    xor.b32 %r3, %r2, 124;
    cvt.u64.u32 %rd5, %r3;
    add.s64 %rd7, %rd6, %rd5;
    ld.shared.u32 %r9, [%rd7];
"""


def test_a_warp_barrier_lets_lanes_read_what_others_wrote():
    shared = ".shared .align 4 .b8 table[128];"
    found, counts = run(THROUGH_SHARED.replace("BARRIER", "bar.warp.sync -1;"), shared=shared)
    np.testing.assert_array_equal(found, 31 - LANES)
    assert counts.barriers == 0
    found, _ = run(THROUGH_SHARED.replace("BARRIER", ""), shared=shared)
    assert (found != 31 - LANES).any()  # lanes run one after another, up to the next barrier


def test_a_lane_that_does_not_come_is_a_failure():
    some_leave = "setp.gt.u32 %p1, %r1, 15;\n@%p1 bra END;\nbar.warp.sync -1;\nEND:\nmov.u32 %r9, 0;"
    with pytest.raises(LaunchFailed, match="wait for others that have ended or wait elsewhere"):
        run(some_leave)
    half = "setp.gt.u32 %p1, %r1, 15;\n@%p1 bra END;\nbar.warp.sync 65535;\nEND:\nmov.u32 %r9, 0;"
    assert not run(half)[0].any()
    elsewhere = (
        "setp.gt.u32 %p1, %r1, 15;\n@%p1 bra OTHER;\nbar.warp.sync -1;\nbra END;\nOTHER:\nbar.warp.sync -1;\nEND:\n"
    )
    with pytest.raises(LaunchFailed, match="different places"):
        run(elsewhere + "mov.u32 %r9, 0;")
    with pytest.raises(LaunchFailed, match="does not take part"):
        run("setp.gt.u32 %p1, %r1, 15;\n@%p1 bra END;\nshfl.sync.idx.b32 %r9|%p2, %r1, 20, 31, 65535;\nEND:\n")


def test_a_loop_between_warp_barriers_counts_as_its_longest_lane():
    """Lanes loop as often as their number says, twice, and wait for each other in between: 31 visits each time."""
    loop = "mov.u32 %r2, 0;\nLOOP{0}:\nadd.s32 %r2, %r2, 1;\nsetp.lt.u32 %p1, %r2, %r1;\n@%p1 bra LOOP{0};\n"
    _, counts = run(loop.format(0) + "bar.warp.sync -1;\n" + loop.format(1) + "mov.u32 %r9, %r2;")
    assert sorted(counts.visits)[-2:] == [31, 31]


def test_the_chain_goes_through_the_heaviest_warp_of_each_stretch():
    """Two warps loop 5 and 9 times, wait for each other, then 20 times and once."""
    loop = "mov.u32 %r2, 0;\nLOOP{0}:\nadd.s32 %r2, %r2, 1;\nsetp.lt.u32 %p1, %r2, %r3;\n@%p1 bra LOOP{0};\n"
    counted = "setp.gt.u32 %p2, %r1, 31;\nselp.b32 %r3, {}, {}, %p2;\n"
    body = counted.format(9, 5) + loop.format(0) + "bar.sync 0;\n" + counted.format(1, 20) + loop.format(1)
    _, counts = run(body + "mov.u32 %r9, %r2;", threads=64)
    assert sorted(counts.visits)[-2:] == [14, 21]
    assert sorted(counts.chain_visits)[-2:] == [9, 20]
    assert sum(weight for _, weight, _ in counts.hottest(99)) == pytest.approx(counts.chain)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("popc.b32 %r9, %r1;", [bin(lane).count("1") for lane in LANES]),
        ("clz.b32 %r9, %r1;", [32 - int(lane).bit_length() for lane in LANES]),
        ("brev.b32 %r9, %r1;", [int(f"{lane:032b}"[::-1], 2) for lane in LANES]),
        ("bfind.u32 %r9, %r1;", [(int(lane).bit_length() - 1) % 2**32 for lane in LANES]),
        ("bfind.shiftamt.u32 %r9, %r1;", [32 - int(n).bit_length() if n else 2**32 - 1 for n in LANES]),
        ("bfi.b32 %r9, %r1, -1, 4, 8;", [0xFFFFF00F | lane << 4 for lane in LANES]),
        ("bfe.u32 %r9, %r1, 1, 3;", (LANES >> 1) & 7),
        ("mul.wide.u32 %rd5, %r1, 3;\nmad.wide.u32 %rd6, %r1, 5, %rd5;\ncvt.u32.u64 %r9, %rd6;", 8 * LANES),
        (
            "cvt.u64.u32 %rd5, %r1;\nbfi.b64 %rd6, %rd5, 7, 32, 32;\nshr.u64 %rd7, %rd6, 32;\ncvt.u32.u64 %r9, %rd7;",
            LANES,
        ),
    ],
)
def test_what_bits_become(text, wanted):
    np.testing.assert_array_equal(run(text)[0], wanted)


def test_what_is_not_known_is_named():
    with pytest.raises(NotUnderstood, match=r"redux.sync.add.s32 %r9, %r1, -1; in probe"):
        run("redux.sync.add.s32 %r9, %r1, -1;")
