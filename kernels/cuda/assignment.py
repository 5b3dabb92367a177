# ruff: noqa: PLR0912, PLR0915, PLR0917 - a kernel is one function over many arrays, without keywords; Numba types it
# mypy: disable-error-code="no-untyped-def, no-untyped-call"
"""The exact assignment of candidates (rows) to people (columns) by one warp, in int64: `kernels.cpu.match` to the bit.

Rows are inserted in order, each by a shortest augmenting path (Dijkstra over reduced costs), the lowest column on ties.
Two things make that parallel without changing its result:

* While a row's nearest column is free, inserting it is only that, and no potential changes. So all rows look for their
  nearest column at once, and the rows before the first that finds its own taken are done: with tags that tell people
  apart, all. No row looks twice, since a path only changes potentials of columns that are taken by then.
* A row whose column is taken searches its path with one lane a column: a step is a few operations a lane and one
  smallest key of the warp.

To look for the nearest column takes 32 bits: of one row's costs the order is that of rint(D) + rint(256 D), which grows
with both. A warp's lanes have more than one row and column each where there are more than 32 of them.
"""

from __future__ import annotations

import functools

import numpy as np

from kernels.cuda._cuda import (
    WARP,
    DeviceArray,
    Kernel,
    Stream,
    as_device_array,
    as_stream,
    cuda,
    device,
    int_max,
    int_min,
    kernel,
    larger,
    mad,
    mul,
    rounded,
    smaller,
    u32,
    warp_ballot,
    warp_barrier,
    warp_min_key,
)
from kernels.cuda.maps import ZERO
from kernels.rules import DISTANCE_WEIGHT, FAR_AWAY, FINE_BITS, FINE_STEPS, VALUE_STEPS

LIMIT = 128  # rows or columns
ROUNDED_WEIGHT = DISTANCE_WEIGHT * int(VALUE_STEPS)
COLUMN_BITS = 7  # a key is a reduced cost above a column
# A free column has the potential 0, so that paths, like costs, are below 2^52, and potentials below 2^53.
UNREACHED = 2**62  # above every key
VISITED = UNREACHED + 2**61  # in place of what a column adds to a key: above UNREACHED, whatever the cost
TAKEN = -1  # of a column's claim: by a row that is done


@device
def fixed_point(value):
    """rint(value * 2^14) of a heatmap value, clipped to -255..255; NaN counts as 0."""
    inside = smaller(larger(value, -FAR_AWAY), FAR_AWAY) if value == value else ZERO  # noqa: PLR0124  NaN is not itself
    return rounded(mul(inside, VALUE_STEPS))


@device
def pair_rank(distance):
    """What orders a row's costs. distance: 0..255."""
    return mad(rounded(mul(distance, FINE_STEPS)), 1, rounded(distance))


@device
def pair_cost(distance, value_steps):
    """See `kernels.rules`; above COLUMN_BITS zeros. distance: 0..255."""
    criterion = mad(rounded(distance), ROUNDED_WEIGHT, mad(value_steps, -1, 0))
    fine = mad(rounded(mul(distance, FINE_STEPS)), 1 << COLUMN_BITS, 0)
    return (np.int64(criterion) << (FINE_BITS + COLUMN_BITS)) + np.int64(fine)


@functools.cache
def assign_function(limit: int, pair_distance: Kernel, lanes: int = WARP) -> Kernel:
    """`assign` for up to `limit` rows and columns. pair_distance(pairs, row, column) gives 0..255."""
    shares = -(-limit // lanes)  # rows, and columns, of a lane
    last = np.int32(limit - 1)

    @device
    def cost(pairs, value_steps, row, column, columns):
        """`pair_cost` of any pair; 0 for the columns that are appended where there are more rows."""
        if column >= columns:
            return np.int64(0)
        return pair_cost(pair_distance(pairs, u32(row), u32(column)), value_steps[u32(row)])

    @device
    def nearest_column(pairs, value_steps, row, rows, columns):
        """The column of a row's least cost, the lowest on ties, and that cost, while all potentials are 0."""
        key = np.int32(0x7FFFFFFF)  # ranks take 17 bits
        column, end = np.uint64(0), np.uint64(columns)
        while column < end:
            rank = pair_rank(pair_distance(pairs, u32(row), column))
            key = int_min(key, mad(rank, 1 << COLUMN_BITS, column))
            column += np.uint64(1)
        nearest = np.int32(key & ((1 << COLUMN_BITS) - 1))
        found = cost(pairs, value_steps, row, nearest, columns)
        if rows > columns and found > 0:
            return columns, np.int64(0)
        return nearest, found

    @cuda.jit(device=True)
    def augment(start, width, columns, pairs, value_steps, state, column_potentials):
        """Insert row `start` along the shortest augmenting path."""
        potentials, owner, column_of, parents, claims = state
        t = np.int32(cuda.threadIdx.x)
        reach, parent = cuda.local.array(shares, np.int64), cuda.local.array(shares, np.int32)  # of unvisited columns
        adds, visited = cuda.local.array(shares, np.int64), cuda.local.array(shares, np.int64)  # visited: their keys
        for share in range(shares):
            column = mad(share, lanes, t)
            reach[share], parent[share], visited[share] = UNREACHED, start, UNREACHED
            adds[share] = np.int64(column) - column_potentials[share] if column < width else np.int64(VISITED)
        row, length = start, np.int64(0)
        while True:
            base = length - potentials[u32(row)]
            key = np.int64(UNREACHED)
            for share in range(shares):
                column = mad(share, lanes, t)
                step = base + cost(pairs, value_steps, row, int_min(column, last), columns) + adds[share]
                if step < reach[share]:
                    reach[share], parent[share] = step, row
                key = reach[share] if shares == 1 else min(key, reach[share])
            key = warp_min_key(key)
            found = np.int32(key & (2**COLUMN_BITS - 1))
            length = key - np.int64(found)
            row = owner[u32(found)]
            if row < 0:
                break
            for share in range(shares):
                if mad(share, lanes, t) == found:
                    visited[share], reach[share], adds[share] = reach[share], UNREACHED, VISITED
        for share in range(shares):
            column = mad(share, lanes, t)
            if column < width:
                parents[u32(column)] = parent[share]
                if visited[share] != UNREACHED:
                    gain = length + np.int64(column) - visited[share]
                    potentials[u32(owner[u32(column)])] += gain
                    column_potentials[share] -= gain
        warp_barrier()
        if t == 0:  # hand the columns along the path over
            potentials[u32(start)] = length
            claims[u32(found)] = TAKEN
            row = np.int32(-1)
            while row != start:
                row = parents[u32(found)]
                before = column_of[u32(row)]
                owner[u32(found)], column_of[u32(row)] = row, found
                found = before
        warp_barrier()

    @cuda.jit(device=True)
    def assign(rows, columns, pairs, value_steps, state):
        """column_of[r] = the column of row r; at least `columns` if it is unmatched. Every lane of the warp calls.

        pairs and value_steps (int32, of each row) are visible to all lanes. state, in shared memory and overwritten:
        potentials int64, owner, column_of, parents and claims int32, each with an entry for each of `limit`.
        """
        potentials, owner, column_of, _, claims = state
        t = np.int32(cuda.threadIdx.x)
        width = int_max(rows, columns)
        column_potentials = cuda.local.array(shares, np.int64)
        nearest, least = cuda.local.array(shares, np.int32), cuda.local.array(shares, np.int64)
        for share in range(shares):
            own = mad(share, lanes, t)
            column_potentials[share], nearest[share], least[share] = 0, 0, 0
            if own < width:
                owner[u32(own)], claims[u32(own)] = -1, rows
            if own < rows:
                column_of[u32(own)] = -1
                nearest[share], least[share] = nearest_column(pairs, value_steps, own, rows, columns)
                potentials[u32(own)] = 0
        warp_barrier()
        start = np.int32(0)
        while start < rows:
            for share in range(shares):
                row = mad(share, lanes, t)
                if start <= row and row < rows:  # noqa: PLR1716 - chained, Numba computes both in 64 bits
                    cuda.atomic.min(claims, u32(nearest[share]), row)
            warp_barrier()
            stop, won = rows, np.int32(0)  # won: a bit for each share whose row has its nearest column
            for share in range(shares):
                row = mad(share, lanes, t)
                lost = False
                if start <= row and row < rows:  # noqa: PLR1716
                    lost = claims[u32(nearest[share])] != row
                    won = won if lost else np.int32(won | (1 << share))
                losers = warp_ballot(lost)
                if stop == rows and losers != 0:
                    stop = mad(share, lanes, cuda.ffs(losers) - 1)
            for share in range(shares):
                row = mad(share, lanes, t)
                column = u32(nearest[share])
                if won & (1 << share):
                    claims[column] = TAKEN if row < stop else rows
                    if row < stop:
                        owner[column], column_of[u32(row)] = row, nearest[share]
                        potentials[u32(row)] = least[share]
            warp_barrier()
            if stop < rows:
                augment(stop, width, columns, pairs, value_steps, state, column_potentials)
            start = mad(stop, 1, 1)

    return assign


@device
def given_distance(pairs, row, column):
    distance = pairs[row, column]
    return distance if distance < FAR_AWAY else FAR_AWAY


@functools.cache
def match_kernel(limit: int, lanes: int = WARP) -> Kernel:
    """`assign` alone, for up to `limit` rows and columns; for tests and measurements."""
    assign = assign_function(limit, given_distance, lanes)

    @kernel
    def match_pairs(distances, values, matched):
        """One block, one warp = one problem: distances (R, C) >= 0 or NaN, values (R,). Writes matched (R,) int32."""
        value_steps = cuda.shared.array(limit, np.int32)
        potentials = cuda.shared.array(limit, np.int64)
        owner = cuda.shared.array(limit, np.int32)
        column_of = cuda.shared.array(limit, np.int32)
        parents = cuda.shared.array(limit, np.int32)
        claims = cuda.shared.array(limit, np.int32)
        t = cuda.threadIdx.x
        rows, columns = np.int32(distances.shape[0]), np.int32(distances.shape[1])
        for row in range(t, rows, lanes):
            value_steps[row] = fixed_point(values[row])
        warp_barrier()
        assign(rows, columns, distances, value_steps, (potentials, owner, column_of, parents, claims))
        for row in range(t, rows, lanes):
            matched[row] = column_of[row] if column_of[row] < columns else -1

    return match_pairs


def match(distance: DeviceArray, value: DeviceArray, out: DeviceArray, *, stream: Stream = 0) -> None:
    """`kernels.cpu.match` on the device: out (R,) int32 = the column of each row, -1 unmatched.

    distance: (R, C) float32 >= 0; value: (R,) float32; R and C 1 to 128. Raises ValueError if the shapes are not such.
    """
    distance, value, out = (
        as_device_array(array, name) for array, name in ((distance, "distance"), (value, "value"), (out, "out"))
    )
    if distance.ndim != 2 or not 0 < max(distance.shape) <= LIMIT or min(distance.shape) == 0:
        raise ValueError(f"distance is {distance.shape}; expected (R, C), both 1 to {LIMIT}")
    if value.shape != (distance.shape[0],) or out.shape != value.shape:
        raise ValueError(f"value is {value.shape} and out {out.shape}; expected ({distance.shape[0]},)")
    match_kernel(LIMIT, WARP)[1, WARP, as_stream(stream)](distance, value, out)
