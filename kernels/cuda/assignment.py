# ruff: noqa: PLR0912, PLR0915, PLR0917 - Numba's functions have no keywords, and stand in the one that makes the kernel
# mypy: disable-error-code="no-untyped-def, no-untyped-call"
"""The exact assignment of candidates (rows) to people (columns) by one warp, in int64: `kernels.cpu.match` to the bit.

Rows are inserted in order, each by a shortest augmenting path (Dijkstra over reduced costs), the lowest column on ties.
Two things make that parallel without changing its result:

* While a row's nearest column is free, inserting it is only that, and no potential changes. So all rows look for their
  nearest column at once, and all rows before the first that finds its column taken are done: with tags that tell
  people apart, all. No row looks twice, since a path only changes potentials of columns that are taken by then.
* A row whose column is taken searches its path with one lane a column: a step is a few operations a lane and one
  smallest key of the warp.

A lane keeps what belongs to its row and to its column in registers, and reads those of another lane by a shuffle. It
has more than one row and column where there are more of them than lanes.

To look for the nearest column takes 32 bits: of one row's costs the order is that of rint(D) + rint(256 D), which grows
with both. All costs of a row are raised by its value, which changes no decision: then the cost of a pair is that of
its distance, and of an appended column, the value.
"""

from __future__ import annotations

import functools

import numpy as np

from kernels.cuda._cuda import (
    WARP,
    DeviceArray,
    Kernel,
    Stream,
    add32,
    as_device_array,
    as_stream,
    cuda,
    device,
    int_max,
    int_min,
    kernel,
    larger,
    mad,
    masked,
    mul,
    mul32,
    rounded,
    shuffle,
    smaller,
    u32,
    warp_ballot,
    warp_barrier,
    warp_min_key,
)
from kernels.cuda.maps import ZERO
from kernels.rules import DISTANCE_WEIGHT, FAR_AWAY, FINE_BITS, FINE_STEPS, VALUE_STEPS

MAX_SIDE = 128  # rows or columns
ROUNDED_WEIGHT = DISTANCE_WEIGHT * int(VALUE_STEPS)
COLUMN_BITS = 7  # a key is a reduced cost above a column
COLUMN_MASK = 2**COLUMN_BITS - 1
READ_AHEAD = 3  # columns behind the last may be read, and must be FAR_AWAY
# A free column has the potential 0, so that paths, like costs, are below 2^52, and potentials below 2^53.
UNREACHED = 2**62  # above every key


@device
def fixed_point(value):
    """rint(value * 2^14) of a heatmap value, clipped to -255..255; NaN counts as 0."""
    inside = smaller(larger(value, -FAR_AWAY), FAR_AWAY) if value == value else ZERO  # noqa: PLR0124  NaN is not itself
    return rounded(mul(inside, VALUE_STEPS))


@device
def pair_rank(distance):
    """What orders a row's costs. distance: 0..255."""
    return add32(rounded(mul(distance, FINE_STEPS)), rounded(distance))


@device
def pair_cost(distance):
    """See `kernels.rules`, without the value; above COLUMN_BITS zeros. distance: 0..255."""
    criterion = np.int64(mul32(rounded(distance), ROUNDED_WEIGHT >> (32 - FINE_BITS - COLUMN_BITS))) << 32
    return criterion | np.int64(mul32(rounded(mul(distance, FINE_STEPS)), 1 << COLUMN_BITS))


@device
def value_cost(value):
    """The cost of an appended column."""
    return np.int64(fixed_point(value)) << (FINE_BITS + COLUMN_BITS)


@functools.cache
def entry_function(slots: int, lanes: int) -> Kernel:
    """`entry_of` for entries that lie in registers, `slots` in each lane; lanes: a power of two."""

    @device
    def entry_of(values, index):
        """values: of this lane; returns the value of an entry of any lane. Every lane calls, with its own index."""
        found = shuffle(values[0], index)
        for slot in range(1, slots):
            other = shuffle(values[slot], index)
            found = other if index >= mul32(slot, lanes) else found
        return found

    return entry_of


@functools.cache
def assign_function(max_side: int, column_part: Kernel, distance: Kernel, numbers: int, lanes: int = WARP) -> Kernel:
    """`assign` for up to `max_side` rows and columns; lanes: a power of two.

    column_part(people, column) gives two values of a column, and distance(people, row's two values, column's two
    values) 0..255; the second are not looked at where numbers is 1.
    """
    slots = -(-max_side // lanes)  # rows, and columns, of a lane
    last = np.int32(max_side - 1)
    has_searchers = slots == 1 and lanes >= 4  # may a row have several lanes?

    entry_of = entry_function(slots, lanes)

    @device
    def part_of(parts, index):
        """As `entry_of`, of the two values that `distance` takes."""
        first = entry_of(parts[0], index)
        return first, entry_of(parts[1], index) if numbers == 2 else parts[1][0]

    def search_function(searchers, at_once):
        """`search` for rows that have so many lanes each, with so many columns at once."""
        across = lanes // searchers  # rows side by side

        @device
        def search(people, parts, slot, columns, lane):
            """The key of the column nearest to a row, of those that this lane looks at: rank, then column."""
            own = parts[0][slot], parts[1][slot]
            column, end = np.int32(0), columns
            if searchers > 1:
                own, column = part_of(parts, lane & (across - 1)), np.int32(u32(lane) // u32(across))
            key = np.int32(0x7FFFFFFF)  # ranks take 17 bits
            while column < end:
                at = np.uint64(u32(column))
                for i in range(at_once):
                    rank = pair_rank(distance(people, own, column_part(people, at + np.uint64(i * searchers))))
                    key = int_min(key, mad(rank, 1 << COLUMN_BITS, add32(column, i * searchers)))
                column = add32(column, at_once * searchers)
            return key

        return search

    search_alone, search_by_two, search_by_four = search_function(1, 4), search_function(2, 2), search_function(4, 1)

    @cuda.jit(device=True)
    def nearest_column(people, parts, slot, rows, columns):
        """The nearest column of a row, the lowest on ties. Where there are few rows, several lanes search for each."""
        t = np.int32(cuda.threadIdx.x)
        if not has_searchers or rows > lanes >> 1:
            return masked(search_alone(people, parts, slot, columns, t), COLUMN_MASK)
        if rows > lanes >> 2:
            key = search_by_two(people, parts, slot, columns, t)
            return masked(int_min(key, shuffle(key, t ^ (lanes >> 1))), COLUMN_MASK)
        key = search_by_four(people, parts, slot, columns, t)
        key = int_min(key, shuffle(key, t ^ (lanes >> 1)))
        return masked(int_min(key, shuffle(key, t ^ (lanes >> 2))), COLUMN_MASK)

    @cuda.jit(device=True)
    def find_path(start, width, columns, people, rows_state, columns_state):
        """Search the shortest path from row `start` to a free column: that column, and the length of the path.

        Leaves of each column its parent, the row before it on the way; whether it is closed: visited, or not there; and
        its reach, the key of the shortest way to it.
        """
        parts, values, row_potentials = rows_state
        owner, column_potentials, parent, reach, closed = columns_state
        t = np.int32(cuda.threadIdx.x)
        adds, takes = cuda.local.array(slots, np.int64), cuda.local.array(slots, np.int64)
        owner_first, owner_second = cuda.local.array(slots, np.float32), cuda.local.array(slots, np.float32)
        first, second = cuda.local.array(slots, np.float32), cuda.local.array(slots, np.float32)
        for slot in range(slots):
            column = mad(slot, lanes, t)
            reach[slot], parent[slot], closed[slot] = UNREACHED, start, column >= width
            adds[slot] = np.int64(column) - column_potentials[slot]
            takes[slot] = np.int64(column) + entry_of(row_potentials, owner[slot])
            owner_first[slot], owner_second[slot] = part_of(parts, owner[slot])
            first[slot], second[slot] = column_part(people, u32(int_min(column, last)))
        row, part = start, part_of(parts, start)
        base = np.int64(0)
        while True:
            key = np.int64(UNREACHED)
            for slot in range(slots):
                cost = pair_cost(distance(people, part, (first[slot], second[slot])))
                if width > columns:  # columns are appended
                    value = value_cost(entry_of(values, row))
                    cost = value if mad(slot, lanes, t) >= columns else cost
                step = base + adds[slot] + cost
                if step < reach[slot]:  # never of a visited one: reduced costs are not below 0
                    reach[slot], parent[slot] = step, row
                open_reach = np.int64(UNREACHED) if closed[slot] else reach[slot]
                key = open_reach if slots == 1 else min(key, open_reach)
            key = warp_min_key(key)
            found = masked(u32(key), COLUMN_MASK)
            row = entry_of(owner, found)
            if row < 0:
                return found, key - np.int64(found)
            base = key - entry_of(takes, found)
            part = part_of((owner_first, owner_second), found)
            for slot in range(slots):
                closed[slot] = closed[slot] or mad(slot, lanes, t) == found

    @cuda.jit(device=True)
    def insert(start, width, columns, people, rows_state, columns_state, column_of):
        """Insert row `start` along the shortest augmenting path."""
        row_potentials, (owner, column_potentials, parent, reach, closed) = rows_state[2], columns_state
        t = np.int32(cuda.threadIdx.x)
        found, length = find_path(start, width, columns, people, rows_state, columns_state)
        gain = cuda.local.array(slots, np.int64)
        for slot in range(slots):
            column = mad(slot, lanes, t)
            gain[slot] = length + np.int64(column) - reach[slot] if closed[slot] and column < width else np.int64(0)
            column_potentials[slot] -= gain[slot]
        for slot in range(slots):
            own_gain = entry_of(gain, column_of[slot])
            if column_of[slot] >= 0:
                row_potentials[slot] += own_gain
            if mad(slot, lanes, t) == start:
                row_potentials[slot] = length
        while True:  # hand the columns along the path over
            row = entry_of(parent, found)
            before = entry_of(column_of, row)
            for slot in range(slots):
                own = mad(slot, lanes, t)
                owner[slot] = row if own == found else owner[slot]
                column_of[slot] = found if own == row else column_of[slot]
            if row == start:
                break
            found = before

    @cuda.jit(device=True)
    def assign(rows, columns, people, parts, values, claims, column_of):
        """column_of = the column of each row of this lane; at least `columns` if it is unmatched. Every lane calls.

        parts (two of float32) and values: of the rows of this lane. claims: int32 in shared memory, an entry for each
        of `max_side`, overwritten.
        """
        t = np.int32(cuda.threadIdx.x)
        width = int_max(rows, columns)
        nearest, contested = cuda.local.array(slots, np.int32), cuda.local.array(slots, np.bool_)
        claimant, owner = cuda.local.array(slots, np.int32), cuda.local.array(slots, np.int32)
        parent, reach = cuda.local.array(slots, np.int32), cuda.local.array(slots, np.int64)
        closed = cuda.local.array(slots, np.bool_)
        row_potentials, column_potentials = cuda.local.array(slots, np.int64), cuda.local.array(slots, np.int64)
        rows_state = parts, values, row_potentials
        columns_state = owner, column_potentials, parent, reach, closed
        for slot in range(slots):
            own = mad(slot, lanes, t)
            if own < width:
                claims[u32(own)] = rows
            nearest[slot] = nearest_column(people, parts, slot, rows, columns)
            part = column_part(people, u32(nearest[slot]))
            row_potentials[slot] = pair_cost(distance(people, (parts[0][slot], parts[1][slot]), part))
            if rows > columns and row_potentials[slot] > value_cost(values[slot]):
                nearest[slot], row_potentials[slot] = columns, value_cost(values[slot])
            owner[slot], column_of[slot], column_potentials[slot] = -1, -1, 0
        warp_barrier()
        for slot in range(slots):
            if mad(slot, lanes, t) < rows:
                cuda.atomic.min(claims, u32(nearest[slot]), mad(slot, lanes, t))
        warp_barrier()
        for slot in range(slots):
            own = mad(slot, lanes, t)
            claimant[slot], contested[slot] = rows, False
            if own < width:
                claimant[slot] = claims[u32(own)]
            if own < rows:
                contested[slot] = claims[u32(nearest[slot])] != own
        start = np.int32(0)
        while start < rows:
            stop = rows
            for slot in range(slots):
                row = mad(slot, lanes, t)
                is_taken = entry_of(owner, nearest[slot]) >= 0
                losers = warp_ballot((is_taken | contested[slot]) & (start <= row) & (row < rows))
                if stop == rows and losers != 0:
                    stop = mad(slot, lanes, cuda.ffs(losers) - 1)
            for slot in range(slots):
                row = mad(slot, lanes, t)
                if start <= row and row < stop:  # noqa: PLR1716
                    column_of[slot] = nearest[slot]
                if start <= claimant[slot] and claimant[slot] < stop:
                    owner[slot] = claimant[slot]
            if stop < rows:
                insert(stop, width, columns, people, rows_state, columns_state, column_of)
            start = add32(stop, 1)

    return assign


@device
def given_column(distances, column):
    return np.float32(column), ZERO


@device
def given_distance(distances, own, part):
    row, column = np.int32(own[0]), np.int32(part[0])
    if column >= distances.shape[1]:
        return FAR_AWAY
    distance = distances[row, column]
    return distance if distance < FAR_AWAY else FAR_AWAY


@functools.cache
def match_kernel(max_side: int, lanes: int = WARP) -> Kernel:
    """`assign` alone, for up to `max_side` rows and columns; for tests and measurements."""
    slots = -(-max_side // lanes)
    assign = assign_function(max_side, given_column, given_distance, 1, lanes)

    @kernel
    def match_pairs(distances, values, matched):
        """One block, one warp = one problem: distances (R, C) >= 0 or NaN, values (R,). Writes matched (R,) int32."""
        claims = cuda.shared.array(max_side, np.int32)
        indices, own_values = cuda.local.array(slots, np.float32), cuda.local.array(slots, np.float32)
        column_of = cuda.local.array(slots, np.int32)
        t = np.int32(cuda.threadIdx.x)
        rows, columns = np.int32(distances.shape[0]), np.int32(distances.shape[1])
        for slot in range(slots):
            row = int_min(mad(slot, lanes, t), rows - 1)
            indices[slot], own_values[slot] = np.float32(row), values[row]
        assign(rows, columns, distances, (indices, indices), own_values, claims, column_of)
        for slot in range(slots):
            row = mad(slot, lanes, t)
            if row < rows:
                matched[row] = column_of[slot] if column_of[slot] < columns else -1

    return match_pairs


def match(distance: DeviceArray, value: DeviceArray, out: DeviceArray, *, stream: Stream = 0) -> None:
    """`kernels.cpu.match` on the device: out (R,) int32 = the column of each row, -1 unmatched.

    distance: (R, C) float32 >= 0; value: (R,) float32; R and C 1 to 128. Raises ValueError if the shapes are not such.
    """
    distance, value, out = (
        as_device_array(array, name) for array, name in ((distance, "distance"), (value, "value"), (out, "out"))
    )
    if distance.ndim != 2 or not 0 < max(distance.shape) <= MAX_SIDE or min(distance.shape) == 0:
        raise ValueError(f"distance is {distance.shape}; expected (R, C), both 1 to {MAX_SIDE}")
    if value.shape != (distance.shape[0],) or out.shape != value.shape:
        raise ValueError(f"value is {value.shape} and out {out.shape}; expected ({distance.shape[0]},)")
    match_kernel(MAX_SIDE, WARP)[1, WARP, as_stream(stream)](distance, value, out)
