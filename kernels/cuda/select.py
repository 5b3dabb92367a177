# ruff: noqa: PLR0915, PLR0917 - Numba's functions have no keywords, and stand in the one that makes the kernel
# mypy: disable-error-code="no-untyped-def, no-untyped-call"
"""The strongest peaks of each joint as candidates: position, value and tags. Sorts what atomics left in any order.

Work at 512x704, K = 17, T = 1: one block a joint. With 1, 10 or 30 people one round over as many keys of 8 bytes,
their square of comparisons, and for each some 32 scattered loads from 10 sectors of 32 bytes and 400 operations: 6, 60
and 180 KB, 7 k, 70 k and 240 k operations: latency, not bandwidth. Worst case, noise: 40,185 keys a joint, 5.5 MB in
all, read once, each warp 32 neighbours; a round of 128 in which no key beats the weakest kept one costs two barriers,
and in random order most are such.
"""

from __future__ import annotations

import functools

import numpy as np

from kernels.cuda._cuda import Kernel, add32, bits_float, cuda, int_max, int_min, kernel, mad, mul32, sub32, u32
from kernels.cuda.group import FIELDS, TAG, VALUE, X, Y
from kernels.cuda.maps import ZERO, heat_at, plane_start, quarter, tag_at, tag_start
from kernels.cuda.peaks import LAST_INDEX

THREADS = 128  # at least max_people, which is at most 128


@functools.cache
def select_kernel(
    max_people: int, mirrored: bool, project: bool, adjust: bool, threads: int = THREADS, numbers: int = 1
) -> Kernel:
    """The kernel that keeps up to `max_people` <= threads candidates a joint; mirrored: T = 2; numbers: D."""
    scale, images = 2 if project else 1, 2 if mirrored else 1
    paired, flipped = mirrored or numbers == 2, numbers == 1  # the second value of tags
    cell_pixels = np.float32(1 if project else 2)  # input pixels a decode cell

    @cuda.jit(device=True)
    def candidate(heatmaps, tags, planes, hw, index):
        """x and y in input pixels and the tags of the decode cell of this index."""
        plain, mirror, tag, second_tag = planes
        H, W = mul32(hw[0], scale), mul32(hw[1], scale)
        y, x = np.int32(u32(index) // u32(W)), np.int32(u32(index) % u32(W))
        place_x, place_y = np.float32(x), np.float32(y)
        if adjust:
            x_after, x_before = int_min(add32(x, 1), sub32(W, 1)), int_max(sub32(x, 1), np.int32(0))
            y_after, y_before = int_min(add32(y, 1), sub32(H, 1)), int_max(sub32(y, 1), np.int32(0))
            right = heat_at(heatmaps, plain, mirror, mirrored, project, hw, y, x_after)
            left = heat_at(heatmaps, plain, mirror, mirrored, project, hw, y, x_before)
            below = heat_at(heatmaps, plain, mirror, mirrored, project, hw, y_after, x)
            above = heat_at(heatmaps, plain, mirror, mirrored, project, hw, y_before, x)
            place_x += quarter(right, left)
            place_y += quarter(below, above)
        tag_hw = (hw[0] >> 1, hw[1] >> 1)
        first, second = tag_at(tags, tag, False, project, tag_hw, y, x), ZERO
        if paired:
            second = tag_at(tags, second_tag, flipped, project, tag_hw, y, x)
        return place_x * cell_pixels, place_y * cell_pixels, first, second

    @kernel
    def select(heatmaps, tags, sizes, orders, keys, counts, found, totals):
        """One block = the joint orders[1, step] of one image; one thread = one key, then one candidate.

        sizes: K, h, w; heatmaps, tags, counts and found are flat. Writes found[n, step, :, :totals[n, step]] of
        (N, K, FIELDS, max_people), strongest first, and totals[n, step]; zeroes counts[n * K + k] for the next frame.
        """
        kept_keys = cuda.shared.array(max_people, np.int64)
        fresh_keys = cuda.shared.array(threads, np.int64)
        t, step, n = np.int32(cuda.threadIdx.x), np.int32(cuda.blockIdx.x), np.int32(cuda.blockIdx.y)
        K, h, w = sizes
        k = orders[1, u32(step)]
        plane = mad(n, K, k)
        total = counts[u32(plane)]
        kept, start = np.int32(0), np.int32(0)
        while start < total:
            own = add32(start, t)
            key = keys[plane, u32(own)] if own < total else np.int64(0)
            fresh_keys[t] = key
            weakest = kept_keys[max_people - 1] if kept == max_people else np.int64(0)
            if cuda.syncthreads_or(np.int32(key > weakest)):
                # Keys are distinct: the rank of one is the number of larger ones.
                fresh = int_min(sub32(total, start), np.int32(threads))
                old = kept_keys[t] if t < kept else np.int64(0)
                rank, old_rank, i = np.int32(0), t, np.int32(0)
                while i < kept:
                    rank = add32(rank, kept_keys[u32(i)] > key)
                    i = add32(i, 1)
                i = np.int32(0)
                while i < fresh:
                    other = fresh_keys[u32(i)]
                    rank, old_rank = add32(rank, other > key), add32(old_rank, other > old)
                    i = add32(i, 1)
                cuda.syncthreads()
                if key > 0 and rank < max_people:
                    kept_keys[rank] = key
                if t < kept and old_rank < max_people:
                    kept_keys[old_rank] = old
                kept = int_min(np.int32(max_people), add32(kept, fresh))
            cuda.syncthreads()
            start = add32(start, threads)
        if t == 0:
            totals[n, step] = kept
            counts[u32(plane)] = 0
        if t < kept:
            key = kept_keys[t]
            first, twin = mul32(n, images), orders[0, u32(k)]
            cells, tag_cells = mul32(h, w), mul32(h >> 1, w >> 1)
            planes = (
                plane_start(first, k, K, cells),
                plane_start(add32(first, 1), twin, K, cells),
                tag_start(first, k, twin, K, tag_cells, numbers, 0),
                tag_start(first, k, twin, K, tag_cells, numbers, 1),
            )
            index = np.int32(LAST_INDEX - (key & LAST_INDEX))
            x, y, tag0, tag1 = candidate(heatmaps, tags, planes, (h, w), index)
            at = mad(mul32(mad(n, K, step), FIELDS), max_people, t)
            found[u32(mad(X, max_people, at))], found[u32(mad(Y, max_people, at))] = x, y
            found[u32(mad(VALUE, max_people, at))] = bits_float(np.int32(key >> 32))
            found[u32(mad(TAG, max_people, at))], found[u32(mad(TAG + 1, max_people, at))] = tag0, tag1

    return select
