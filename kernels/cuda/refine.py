# ruff: noqa: PLR0915, PLR0917 - a kernel is one function over many arrays, without keywords; Numba types it
# mypy: disable-error-code="no-untyped-def, no-untyped-call"
"""Missing joints: for each person and joint the cell of the largest value - rint(tag distance), if of value > 0.

A full search reads both maps for every missing joint. `peaks` left for each tile its largest heat and its range of
tags, which bound what a cell of it can be score. The tile of the highest bound is searched first, and then only tiles
whose bound is not below what was found. Bounds hold for float32 as computed, so that nothing that could win or tie is
skipped, and the result depends neither on the order of the search nor on how blocks share it.

Work at 512x704, K = 17, T = 1: each missing joint reads 352 bounds of 12 bytes (4 KB), and for each tile searched 324
heatmap and 100 tag cells (1.7 KB, mostly from L2), and does some 45 k operations. How many tiles depends on how far the
background's tags are from the person's. On drawn crowds with noise everywhere (tests/kernels/cuda/crowds.py) 1, 10 and
30 people miss 5, 93 and 195 joints and search 236, 40 and 41 tiles for each: 2, 7 and 14 MB and 53, 170 and 360 M
operations, 2 to 12 us of an H100's FP32 rate; on those of tests/golden 5 to 14 tiles. Worst case, maps without
contrast: all 352. Lanes read neighbouring bounds where a block has all of a joint's tiles, else as far apart as there
are shares, and runs of 18 neighbouring cells.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from kernels.cuda._cuda import cuda, device, mul, rint, sqrt
from kernels.cuda.group import UNSEARCHED
from kernels.cuda.maps import (
    ZERO,
    border,
    heat_at,
    heat_cell,
    ordered,
    quad,
    quarter_offset,
    tag_half,
)
from kernels.cuda.peaks import LAST_INDEX, NOTHING, TILE
from kernels.cuda.tags import tag_distance, tag_mean
from kernels.rules import FAR_AWAY, SLACK

THREADS = 256  # a cell of a tile each
SHRINK = np.float32(1) - SLACK


@device
def tag_gap(low, high, tag):
    """At most the distance of `tag` from any tag in low..high as interpolation rounds it; 0 where that is unknown."""
    gap = max(low - tag, tag - high) - SLACK * (abs(low) + abs(high))
    return gap if gap > ZERO else ZERO  # NaN compares false


@device
def tile_bound(bounds, n, k, tile, tag0, tag1):
    """No cell of the tile is score more."""
    gap0 = tag_gap(-bounds[n, k, 1, tile], bounds[n, k, 2, tile], tag0)
    gap1 = tag_gap(-bounds[n, k, 3, tile], bounds[n, k, 4, tile], tag1)
    gap = mul(sqrt(mul(gap0, gap0) + mul(gap1, gap1)), SHRINK)
    return bounds[n, k, 0, tile] - rint(gap if gap < FAR_AWAY else FAR_AWAY)


@device
def better(best, score, index):
    """The larger key of two; a key holds a score above, the inverted row-major index below. NaN is worth nothing."""
    if score >= NOTHING:
        return max(best, (ordered(score) << 32) + (LAST_INDEX - index))
    return best


@cuda.jit(device=True)
def block_max(slots, key):
    """The largest key of the block's threads, for each of them; slots has one entry a thread (a power of two)."""
    t = cuda.threadIdx.x
    slots[t] = key
    cuda.syncthreads()
    half = cuda.blockDim.x // 2
    while half > 0:
        if t < half and slots[t + half] > slots[t]:
            slots[t] = slots[t + half]
        cuda.syncthreads()
        half //= 2
    best = slots[0]
    cuda.syncthreads()
    return best


@functools.cache
def refine_kernel(joints: int, mirrored: bool, project: bool, tile: int = TILE, threads: int = THREADS) -> Any:
    """The kernel for `joints` joints; mirrored: T = 2; tile as given to `peaks_kernel`; threads a power of two."""
    scale = 2 if project else 1
    cell = np.float32(1 if project else 2)  # input pixels a decode cell
    side = tile + 2  # heatmap cells with a halo of one
    cells_shape, tag_planes, member_shape = (side, side), 2 if mirrored else 1, (joints, 2)
    halves_shape = (tag_planes, side, side)

    @cuda.jit(device=True)
    def person_tag(members, n, person, is_member, member_tags):
        """Compact the tags of the person's found joints, in joint order, into member_tags; returns how many."""
        t, first = cuda.threadIdx.x, person * joints
        for j in range(t, joints, threads):
            is_member[j] = 1 if members[n, 2, first + j] > ZERO else 0
        cuda.syncthreads()
        joined = 0
        for j in range(joints):
            if is_member[j] and j % threads == t:
                member_tags[joined, 0], member_tags[joined, 1] = members[n, 3, first + j], members[n, 4, first + j]
            joined += is_member[j]
        cuda.syncthreads()
        return joined

    @cuda.jit(device=True)
    def search(heat, mirror_heat, tag, mirror_tag, y0, x0, tag0, tag1, cells, halves):
        """The best key of this thread's share of the tile whose first cell is (y0, x0)."""
        h, w = heat.shape
        for i in range(cuda.threadIdx.x, side * side, threads):
            row, column = i // side, i % side
            y, x = y0 - 1 + row, x0 - 1 + column
            if 0 <= y < h and 0 <= x < w:
                cells[row, column] = heat_cell(heat, mirror_heat, mirrored, y, x)
                halves[0, row, column] = tag_half(tag, False, y, x)
                if mirrored:
                    halves[1, row, column] = tag_half(mirror_tag, True, y, x)
        cuda.syncthreads()
        best = np.int64(UNSEARCHED)
        for i in range(cuda.threadIdx.x, tile * tile, threads):
            row, column = 1 + i // tile, 1 + i % tile
            y, x = y0 + row - 1, x0 + column - 1
            if y >= h or x >= w:
                continue
            if project:
                up, down = border(y, h)
                left, right = border(x, w)
                heat_a, heat_b, heat_c, heat_d = quad(cells, row, column, up, down, left, right)
                own_a, own_b, own_c, own_d = quad(halves[0], row, column, up, down, left, right)
                more_a, more_b, more_c, more_d = ZERO, ZERO, ZERO, ZERO
                if mirrored:
                    more_a, more_b, more_c, more_d = quad(halves[1], row, column, up, down, left, right)
                index = 4 * y * w + 2 * x
                best = better(best, heat_a - rint(tag_distance(own_a, more_a, tag0, tag1)), index)
                best = better(best, heat_b - rint(tag_distance(own_b, more_b, tag0, tag1)), index + 1)
                index += 2 * w
                best = better(best, heat_c - rint(tag_distance(own_c, more_c, tag0, tag1)), index)
                best = better(best, heat_d - rint(tag_distance(own_d, more_d, tag0, tag1)), index + 1)
            else:
                more = halves[1, row, column] if mirrored else ZERO
                score = cells[row, column] - rint(tag_distance(halves[0, row, column], more, tag0, tag1))
                best = better(best, score, y * w + x)
        cuda.syncthreads()
        return best

    @cuda.jit(device=True)
    def write_joint(heat, mirror_heat, best, keypoints, n, person, k):
        """The cell of the best key as a keypoint, if its value is above 0. One thread calls."""
        H, W = heat.shape[0] * scale, heat.shape[1] * scale
        index = LAST_INDEX - int(best & LAST_INDEX)
        y, x = index // W, index % W
        value = heat_at(heat, mirror_heat, mirrored, project, y, x)
        if value > ZERO:
            right = heat_at(heat, mirror_heat, mirrored, project, y, min(x + 1, W - 1))
            left = heat_at(heat, mirror_heat, mirrored, project, y, max(x - 1, 0))
            below = heat_at(heat, mirror_heat, mirrored, project, min(y + 1, H - 1), x)
            above = heat_at(heat, mirror_heat, mirrored, project, max(y - 1, 0), x)
            keypoints[n, person, k, 0] = (np.float32(x) + quarter_offset(right, left)) * cell
            keypoints[n, person, k, 1] = (np.float32(y) + quarter_offset(below, above)) * cell
            keypoints[n, person, k, 2] = value

    @cuda.jit
    def refine(heatmaps, tags, orders, bounds, members, missing, searches, keypoints):
        """The blocks of an image share its missing joints, and where there are more blocks, each joint's tiles.

        searches[n, 0] takes each joint's best key by atomic maximum, whatever the order; searches[n, 1] counts the
        shares done, and who does the last one writes keypoints[n, person, joint]. `group` resets both.
        """
        cells = cuda.shared.array(cells_shape, np.float32)
        halves = cuda.shared.array(halves_shape, np.float32)
        member_tags = cuda.shared.array(member_shape, np.float32)
        is_member = cuda.shared.array(joints, np.int32)
        slots = cuda.shared.array(threads, np.int64)
        promising = cuda.shared.array(threads, np.int32)
        promised = cuda.shared.array(1, np.int32)
        floor = cuda.shared.array(1, np.int64)  # what other shares found so far
        t, n = cuda.threadIdx.x, cuda.blockIdx.y
        across = (heatmaps.shape[4] + tile - 1) // tile
        tiles = bounds.shape[3]
        listed = int(missing[n, 0, 0])
        if listed == 0:
            return
        shares = min(max(cuda.gridDim.x // listed, 1), tiles)

        for item in range(cuda.blockIdx.x, listed * shares, cuda.gridDim.x):
            share = item % shares  # its tiles: share, share + shares, ...
            entry = 1 + item // shares
            target = int(missing[n, entry, 0])
            person, k = target // joints, target % joints
            mirror = 1 if mirrored else 0
            heat, mirror_heat = heatmaps[n, 0, k], heatmaps[n, mirror, orders[0, k]]
            tag, mirror_tag = tags[n, 0, k], tags[n, mirror, orders[0, k]]
            if t == 0:
                floor[0] = searches[n, 0, target]
            joined = person_tag(members, n, missing[n, entry, 1], is_member, member_tags)
            tag0 = tag_mean(member_tags, 0, joined, not mirrored)
            tag1 = tag_mean(member_tags, 1, joined, False) if mirrored else ZERO

            best = floor[0]
            for start in range(share, tiles, threads * shares):
                own = start + t * shares
                key = np.int64(UNSEARCHED)
                if own < tiles:
                    key = better(key, tile_bound(bounds, n, k, own, tag0, tag1), own)
                bound = key >> 32
                first = block_max(slots, key)
                for others in range(2):  # first the tile of the highest bound, then what is not below its best
                    if t == 0:
                        promised[0] = 0
                    cuda.syncthreads()
                    if own < tiles and (key != first if others else key == first) and bound >= best >> 32:
                        promising[cuda.atomic.add(promised, 0, 1)] = own
                    cuda.syncthreads()
                    for j in range(promised[0]):
                        i = int(promising[j])
                        y0, x0 = i // across * tile, i % across * tile
                        found = search(heat, mirror_heat, tag, mirror_tag, y0, x0, tag0, tag1, cells, halves)
                        best = max(best, found)
                    best = block_max(slots, best)

            if t == 0:
                cuda.atomic.max(searches, (n, 0, target), best)
                cuda.threadfence()
                if cuda.atomic.add(searches, (n, 1, target), 1) == shares - 1:
                    cuda.threadfence()
                    best = cuda.atomic.max(searches, (n, 0, target), UNSEARCHED)
                    if best > UNSEARCHED:
                        write_joint(heat, mirror_heat, best, keypoints, n, person, k)
            cuda.syncthreads()

    return refine
