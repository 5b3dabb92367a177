# ruff: noqa: PLR0915, PLR0917 - a kernel is one function over many arrays, without keywords; Numba types it
# mypy: disable-error-code="no-untyped-def, no-untyped-call"
"""The strongest peaks of each joint as candidates: position, value and tags. Undoes the disorder of the atomics.

Work at 512x704, K = 17, T = 1: one block a joint. With 1, 10 or 30 people one round over as many keys of 8 bytes,
their square of comparisons, and for each some 32 scattered loads from 10 sectors of 32 bytes and 400 operations: 6, 60
and 180 KB, 7 k, 70 k and 240 k operations: latency, not bandwidth. Worst case, noise: 40,185 keys a joint, 5.5 MB in
all, read once, each warp 32 neighbours; a round of 128 in which no key beats the weakest kept one costs two barriers,
and in random order most are such.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from kernels.cuda._cuda import bits_float, cuda
from kernels.cuda.maps import ZERO, heat_at, quarter_offset, tag_at
from kernels.cuda.peaks import LAST_INDEX

THREADS = 128  # at least max_people, which is at most 128
FIELDS = 5  # of a candidate: x and y in input pixels, value, tag 0, tag 1 (0 if T = 1)


@functools.cache
def select_kernel(limit: int, mirrored: bool, project: bool, adjust: bool, threads: int = THREADS) -> Any:
    """The kernel that keeps up to `limit` <= threads candidates a joint; mirrored: T = 2."""
    scale = 2 if project else 1
    cell = np.float32(1 if project else 2)  # input pixels a decode cell

    @cuda.jit
    def select(heatmaps, tags, orders, keys, counts, found, totals):
        """One block = the joint orders[1, step] of one image; one thread = one key, then one candidate.

        Writes found[n, step, :, :totals[n, step]] (N, K, FIELDS, limit), strongest first, and totals[n, step]; zeroes
        counts[n, k] for the next frame.
        """
        kept_keys = cuda.shared.array(limit, np.int64)
        fresh_keys = cuda.shared.array(threads, np.int64)
        t, step, n = cuda.threadIdx.x, cuda.blockIdx.x, cuda.blockIdx.y
        k = orders[1, step]
        heat, mirror_heat = heatmaps[n, 0, k], heatmaps[n, 1 if mirrored else 0, orders[0, k]]
        total = counts[n, k]
        kept = 0
        for start in range(0, total, threads):
            key = keys[n, k, start + t] if start + t < total else np.int64(0)
            fresh_keys[t] = key
            weakest = kept_keys[limit - 1] if kept == limit else np.int64(0)
            if cuda.syncthreads_or(np.int32(key > weakest)):
                # Keys are distinct: the rank of one is the number of larger ones.
                fresh = min(total - start, threads)
                old = kept_keys[t] if t < kept else np.int64(0)
                rank, old_rank = 0, t
                for i in range(kept):
                    rank += 1 if kept_keys[i] > key else 0
                for i in range(fresh):
                    rank += 1 if fresh_keys[i] > key else 0
                    old_rank += 1 if fresh_keys[i] > old else 0
                cuda.syncthreads()
                if key > 0 and rank < limit:
                    kept_keys[rank] = key
                if t < kept and old_rank < limit:
                    kept_keys[old_rank] = old
                kept = min(limit, kept + fresh)
            cuda.syncthreads()
        cuda.syncthreads()
        if t == 0:
            totals[n, step] = kept
            counts[n, k] = 0
        if t < kept:
            key = kept_keys[t]
            H, W = heat.shape[0] * scale, heat.shape[1] * scale
            index = LAST_INDEX - int(key & LAST_INDEX)
            y, x = index // W, index % W
            place_x, place_y = np.float32(x), np.float32(y)
            if adjust:
                right = heat_at(heat, mirror_heat, mirrored, project, y, min(x + 1, W - 1))
                left = heat_at(heat, mirror_heat, mirrored, project, y, max(x - 1, 0))
                below = heat_at(heat, mirror_heat, mirrored, project, min(y + 1, H - 1), x)
                above = heat_at(heat, mirror_heat, mirrored, project, max(y - 1, 0), x)
                place_x += quarter_offset(right, left)
                place_y += quarter_offset(below, above)
            found[n, step, 0, t] = place_x * cell
            found[n, step, 1, t] = place_y * cell
            found[n, step, 2, t] = bits_float(np.int32(key >> 32))
            found[n, step, 3, t] = tag_at(tags[n, 0, k], False, project, y, x)
            found[n, step, 4, t] = tag_at(tags[n, 1, orders[0, k]], True, project, y, x) if mirrored else ZERO

    return select
