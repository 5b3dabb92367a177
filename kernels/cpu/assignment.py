"""Candidates (rows) to groups (columns): the exact assignment of least total cost, in int64."""

from __future__ import annotations

import numpy as np

from kernels.cpu._jit import entry, inner
from kernels.cpu.maps import Floats, Ints
from kernels.rules import DISTANCE_WEIGHT, FAR_AWAY, FINE_BITS, FINE_STEPS, VALUE_STEPS

UNREACHED = np.int64(2**62)
MATCH_LIMIT = 1024  # rows or columns: 1024 * 25755 * 2^37 < 2^62


@inner
def _costs(distance: Floats, value: Floats) -> Ints:
    R, C = distance.shape
    cost = np.zeros((R, max(R, C)), np.int64)
    for r in range(R):
        steps = np.int64(0)
        if not np.isnan(value[r]):
            steps = np.int64(np.rint(min(max(value[r], -FAR_AWAY), FAR_AWAY) * VALUE_STEPS))
        for c in range(C):
            d = distance[r, c]
            d = d if d < FAR_AWAY else FAR_AWAY
            criterion = DISTANCE_WEIGHT * np.int64(np.rint(d)) * np.int64(VALUE_STEPS) - steps
            cost[r, c] = criterion * 2**FINE_BITS + np.int64(np.rint(d * FINE_STEPS))
    return cost


@inner
def assign(distance: Floats, value: Floats, columns: Ints) -> None:
    """columns (R,) = the column of each row of distance (R, C), or -1: min(R, C) pairs of the least total cost, where

        cost[r, c] = (100 * rint(D) * 2^14 - rint(value * 2^14)) * 2^23 + rint(D * 2^8)        one int64

    with D clipped to 255 (NaN: 255) and value to -255..255 (NaN: 0). With R > C, R - C columns of cost 0 are appended:
    a row that gets one is unmatched. Rows are inserted in order, each by a shortest augmenting path over reduced costs
    (Dijkstra): the next column is the unvisited one of the smallest tentative distance, the lowest on ties; a tentative
    distance is replaced only by a strictly smaller one.
    """
    R, C = distance.shape
    cost = _costs(distance, value)
    N = cost.shape[1]
    u, v = np.zeros(R, np.int64), np.zeros(N, np.int64)  # potentials
    owner, parent = np.full(N, -1, np.int64), np.empty(N, np.int64)
    reach, visited = np.empty(N, np.int64), np.empty(N, np.bool_)
    columns.fill(-1)
    for start in range(R):
        reach.fill(UNREACHED)
        visited.fill(False)
        row, length = start, np.int64(0)
        column = -1
        while row >= 0:
            column = -1
            for c in range(N):
                if visited[c]:
                    continue
                step = length + cost[row, c] - u[row] - v[c]
                if step < reach[c]:
                    reach[c], parent[c] = step, row
                if column < 0 or reach[c] < reach[column]:
                    column = c
            length = reach[column]
            visited[column] = True
            row = owner[column]
        u[start] += length
        for c in range(N):
            if visited[c] and c != column:
                u[owner[c]] += length - reach[c]
                v[c] -= length - reach[c]
        while column >= 0:  # hand the columns along the path over
            row = parent[column]
            owner[column] = row
            column, columns[row] = columns[row], column
    for r in range(R):
        if columns[r] >= C:
            columns[r] = -1


@entry
def _assign(distance: Floats, value: Floats) -> Ints:
    columns = np.empty(len(value), np.int64)
    assign(distance, value, columns)
    return columns


def match(distance: Floats, value: Floats) -> Ints:
    """The column (group) of each row (candidate), -1 where a row is unmatched: the rule of `assign`.

    distance: (R, C) tag distances, unrounded; value: (R,) heatmap values. Returns (R,) int64. The test of the distance
    against the tag threshold comes after. Raises ValueError if the shapes disagree or a side is above MATCH_LIMIT.
    """
    distance = np.asarray(distance, np.float32, order="C")
    value = np.asarray(value, np.float32, order="C")
    if distance.ndim != 2 or value.shape != distance.shape[:1]:
        raise ValueError(f"distance is {distance.shape} and value {value.shape}; expected (R, C) and (R,)")
    if max(distance.shape) > MATCH_LIMIT:
        raise ValueError(f"distance is {distance.shape}; expected at most {MATCH_LIMIT} rows and columns")
    columns: Ints = _assign(*(a if a.flags.writeable else a.copy() for a in (distance, value)))
    return columns
