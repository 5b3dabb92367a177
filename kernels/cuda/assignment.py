# ruff: noqa: PLR0912, PLR0917 - a kernel is one function over many arrays, without keywords; Numba types it
# mypy: disable-error-code="no-untyped-def, no-untyped-call"
"""The exact assignment of candidates (rows) to people (columns) by one block, in int64: `kernels.cpu.match` to the bit.

Rows are inserted in order, each by a shortest augmenting path (Dijkstra over reduced costs), the lowest column on ties.
Two things make that parallel without changing its result:

* While every row's nearest column is free, inserting it is only that: no potential changes. So all rows look for their
  nearest column at once, and the rows before the first collision are done: with tags that tell people apart, all.
* A colliding row searches its path with one thread a column. Then the rows after it look again.

A pair's cost is kept in 16 bits: with r = rint(D) and d = rint(256 D) for D in 0..255, d - 256 r is -128..128, hence
`d + r` takes each value of 0..65535 for one pair (r, d) only, and 128 x 128 pairs fit into 33 KB of shared memory.

Work for R rows and C columns: R x C x 20 operations for the pairs, as many to look, both split over the block; a path
of s steps costs s x max(R, C) comparisons for each thread and two barriers a step. In shared memory but for the inputs.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from kernels.cuda._cuda import as_device_array, as_stream, cuda, device, mul, rint
from kernels.cuda.maps import ZERO
from kernels.rules import DISTANCE_WEIGHT, FAR_AWAY, FINE_BITS, FINE_STEPS, VALUE_STEPS

THREADS = 128  # a column each: max_people is at most 128
ROUNDED_WEIGHT = DISTANCE_WEIGHT * int(VALUE_STEPS)
COLUMN_BITS = 7  # a key is a reduced cost above a column: costs are below 2^52, reduced ones and paths below 2^54
UNREACHED = 2**62  # above every key


def lanes_for(limit: int) -> int:
    """Threads that stand for rows or columns side by side: the smallest power of two that is at least `limit`."""
    return 1 << (limit - 1).bit_length()


def pair_stride(limit: int) -> int:
    """Entries of a row of pairs: twice an odd number, so that 32 rows' words (4 bytes) lie in 32 different banks."""
    return (limit + 1) // 4 * 4 + 2


@device
def pair_code(distance):
    """distance: 0..255."""
    return np.uint16(np.int32(rint(distance)) + np.int32(rint(mul(distance, FINE_STEPS))))


@device
def fixed_point(value):
    """rint(value * 2^14) of a heatmap value, clipped to -255..255; NaN counts as 0."""
    inside = min(max(value, -FAR_AWAY), FAR_AWAY) if value == value else ZERO  # noqa: PLR0124  NaN is not itself
    return np.int32(rint(mul(inside, VALUE_STEPS)))


@device
def cost(codes, value_steps, row, column, columns):
    """The cost of a pair; 0 for the columns that are appended where there are more rows."""
    if column >= columns:
        return np.int64(0)
    code = np.int64(codes[row, column])
    whole = ((code + 128) * 65281) >> 24  # = (code + 128) // 257 for every code
    return ((whole * ROUNDED_WEIGHT - np.int64(value_steps[row])) << FINE_BITS) + (code - whole)


@cuda.jit(device=True)
def augment(start, rows, columns, codes, value_steps, u, v, owner, column_of, parents, keys):
    """Insert row `start` along the shortest augmenting path. Every thread of the block calls; thread t is column t."""
    t = cuda.threadIdx.x
    width = max(rows, columns)
    reach, length = np.int64(UNREACHED), np.int64(0)
    parent, visited = start, False
    row, column = start, 0
    while True:
        if t < width:
            if not visited:
                step = length + cost(codes, value_steps, row, t, columns) - u[row] - v[t]
                if step < reach:
                    reach, parent = step, row
            keys[t] = np.int64(UNREACHED) if visited else (reach << COLUMN_BITS) + t
        cuda.syncthreads()
        key = keys[0]
        for i in range(1, width):
            key = min(key, keys[i])
        cuda.syncthreads()
        length, column = key >> COLUMN_BITS, int(key & 127)
        visited = visited or t == column
        if owner[column] < 0:
            break
        row = owner[column]
    if t < width:
        parents[t] = parent
        if visited and t != column:
            u[owner[t]] += length - reach
            v[t] -= length - reach
    if t == 0:
        u[start] = length
    cuda.syncthreads()
    if t == 0:  # hand the columns along the path over
        while True:
            row = parents[column]
            before = column_of[row]
            owner[column], column_of[row] = row, column
            if row == start:
                break
            column = before
    cuda.syncthreads()


@cuda.jit(device=True)
def assign(rows, columns, lanes, codes, value_steps, u, v, owner, column_of, parents, keys, claims):
    """column_of[r] = the column of row r; at least `columns` if it is unmatched. Every thread of the block calls.

    codes (rows, stride) and value_steps (rows,) hold the pairs and are visible to all threads. The other arrays, in
    shared memory, are overwritten: u, v, keys int64 and parents, owner, column_of int16 of `lanes`, but keys of the
    whole block; claims int32 of lanes + 1. lanes, a power of two, divides the block and is at least rows and columns.
    """
    t = cuda.threadIdx.x
    own_row, share, shares = t % lanes, t // lanes, cuda.blockDim.x // lanes
    width = max(rows, columns)
    if t < lanes:
        v[t] = 0
        owner[t], column_of[t] = -1, -1
    cuda.syncthreads()
    start = 0
    while start < rows:
        if t < lanes:
            claims[t] = rows
        if t == 0:
            claims[lanes] = rows  # the first row that collides
        key = np.int64(UNREACHED)
        if start <= own_row < rows:
            for c in range(share, width, shares):
                key = min(key, ((cost(codes, value_steps, own_row, c, columns) - v[c]) << COLUMN_BITS) + c)
        keys[t] = key
        cuda.syncthreads()
        column = 0
        pending = start <= t < rows
        if pending:
            for i in range(t + lanes, cuda.blockDim.x, lanes):
                key = min(key, keys[i])
            column = int(key & 127)
            if owner[column] < 0:
                cuda.atomic.min(claims, column, t)
        cuda.syncthreads()
        if pending and claims[column] != t:
            cuda.atomic.min(claims, lanes, t)
        cuda.syncthreads()
        stop = claims[lanes]
        if pending and t < stop:
            owner[column], column_of[t] = t, column
            u[t] = key >> COLUMN_BITS
        if pending and t == stop:
            u[t] = 0
        cuda.syncthreads()
        if stop < rows:
            augment(stop, rows, columns, codes, value_steps, u, v, owner, column_of, parents, keys)
        start = stop + 1


@functools.cache
def match_kernel(limit: int, threads: int = THREADS) -> Any:
    """`assign` alone, for up to `limit` rows and columns; for tests and measurements."""
    lanes = lanes_for(limit)
    codes_shape, claims_shape = (limit, pair_stride(limit)), lanes + 1

    @cuda.jit
    def match_pairs(distances, values, matched):
        """One block = one problem: distances (R, C) >= 0 or NaN, values (R,). Writes matched (R,) int32, or -1."""
        codes = cuda.shared.array(codes_shape, np.uint16)
        value_steps = cuda.shared.array(lanes, np.int32)
        u = cuda.shared.array(lanes, np.int64)
        v = cuda.shared.array(lanes, np.int64)
        keys = cuda.shared.array(threads, np.int64)
        owner = cuda.shared.array(lanes, np.int16)
        column_of = cuda.shared.array(lanes, np.int16)
        parents = cuda.shared.array(lanes, np.int16)
        claims = cuda.shared.array(claims_shape, np.int32)
        t = cuda.threadIdx.x
        rows, columns = distances.shape
        for i in range(t, rows * columns, threads):
            far = distances[i // columns, i % columns]
            codes[i // columns, i % columns] = pair_code(far if far < FAR_AWAY else FAR_AWAY)
        if t < rows:
            value_steps[t] = fixed_point(values[t])
        cuda.syncthreads()
        assign(rows, columns, lanes, codes, value_steps, u, v, owner, column_of, parents, keys, claims)
        if t < rows:
            matched[t] = column_of[t] if column_of[t] < columns else -1

    return match_pairs


def match(distance: Any, value: Any, out: Any, *, stream: Any = 0) -> None:
    """`kernels.cpu.match` on the device: out (R,) int32 = the column of each row, -1 unmatched.

    distance: (R, C) float32 >= 0; value: (R,) float32; R and C 1 to 128. Raises ValueError if the shapes are not such.
    """
    distance, value, out = (
        as_device_array(array, name) for array, name in ((distance, "distance"), (value, "value"), (out, "out"))
    )
    if distance.ndim != 2 or not 0 < max(distance.shape) <= THREADS or min(distance.shape) == 0:
        raise ValueError(f"distance is {distance.shape}; expected (R, C), both 1 to {THREADS}")
    if value.shape != (distance.shape[0],) or out.shape != value.shape:
        raise ValueError(f"value is {value.shape} and out {out.shape}; expected ({distance.shape[0]},)")
    match_kernel(THREADS, THREADS)[1, THREADS, as_stream(stream)](distance, value, out)
