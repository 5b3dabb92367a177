# ruff: noqa: PLR0917 - compiled functions have no keyword-only arguments
"""Peaks to people: joint by joint, each candidate to the group of the nearest tag, or to a new one; then the score."""

from __future__ import annotations

import numpy as np

from kernels.cpu._jit import inner
from kernels.cpu.assignment import assign
from kernels.cpu.maps import Floats, Ints
from kernels.cpu.tags import tag_distance, tag_mean


@inner
def group(
    values: Floats,
    cells: Ints,
    counts: Ints,
    tags: Floats,
    W: int,
    order: Ints,
    tag_threshold: np.float32,
    people: Floats,
) -> int:
    """Fills people (max_people, K, 3), zeroed before, with cell x, cell y, value; returns how many there are.

    values (K, M), cells (K, M) and counts (K,): each joint's peaks on a grid of width W; tags (T, K, M): their tags.
    A group is an index, its tag the mean of its joints' tags in the order in which they joined. A candidate that is
    unmatched, or as far as tag_threshold from its match, opens a group, in candidate order, until people is full.
    """
    T, K, M = tags.shape
    G = len(people)
    members, sizes = np.empty((G, K, T), np.float32), np.zeros(G, np.int64)
    centres = np.empty((G, T), np.float32)
    distance = np.empty((M, G), np.float32)
    own = np.empty((M, T), np.float32)
    columns = np.empty(M, np.int64)
    P = 0
    for k in order:
        R, C = counts[k], P
        for r in range(R):
            for t in range(T):
                own[r, t] = tags[t, k, r]
        if C > 0 and R > 0:
            near = distance.ravel()[: R * C].reshape(R, C)
            for r in range(R):
                for c in range(C):
                    near[r, c] = tag_distance(own[r], centres[c])
            assign(near, values[k, :R], columns[:R])
        else:
            near = distance.ravel()[:0].reshape(0, 0)
            columns.fill(-1)
        for r in range(R):
            g = columns[r]
            if g < 0 or not near[r, g] < tag_threshold:
                if P == G:
                    continue
                g = P
                P += 1
            people[g, k, 0], people[g, k, 1], people[g, k, 2] = cells[k, r] % W, cells[k, r] // W, values[k, r]
            for t in range(T):
                members[g, sizes[g], t] = own[r, t]
            sizes[g] += 1
        for g in range(P):
            tag_mean(members[g], sizes[g], centres[g])
    return P


@inner
def score(people: Floats, scores: Floats) -> None:
    """scores (P,) = the float32 mean of each person's K values, zeros of missing joints included."""
    mean = np.empty(1, np.float32)
    for p in range(len(people)):
        tag_mean(people[p, :, 2:3], people.shape[1], mean)
        scores[p] = mean[0]
