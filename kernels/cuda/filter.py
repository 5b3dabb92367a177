# ruff: noqa: PLR0912, PLR0917 - a kernel is one function over many arrays, without keywords; Numba types it
# mypy: disable-error-code="no-untyped-def, no-untyped-call"
"""The output filter: duplicates by OKS dropped, then weak joints zeroed. Launched only where one of them is asked for.

Work for P people of K joints: P^2 x K pairs of joints at some 20 operations and an exponential, over one block (K =
17: 340, 34 k and 310 k operations for 1, 10 and 30 people), then P rounds of two barriers; 12 x K bytes a person in,
and as many out for max_people: 6 to 12 KB at 30. Neighbouring threads copy neighbouring keypoints.
"""

from __future__ import annotations

import functools
from math import exp
from typing import Any

import numpy as np

from kernels.cuda._cuda import cuda, device, div
from kernels.cuda.assignment import THREADS
from kernels.cuda.maps import ZERO

ONE = np.float32(1)


@device
def oks(people, n, person, reference, area, spreads):
    """How much of `person` the stronger `reference` explains, 0 to 1: as in tests/reference/decode.py, in float32.

    people (N, P, K, 3); spreads (K,): 8 sigma^2. area is the reference's: negative if it has no joint.
    """
    found = 0
    total = ZERO
    for k in range(people.shape[2]):
        if people[n, person, k, 2] > ZERO:
            found += 1
            if people[n, reference, k, 2] > ZERO:
                dx = people[n, person, k, 0] - people[n, reference, k, 0]
                dy = people[n, person, k, 1] - people[n, reference, k, 1]
                square = dx * dx + dy * dy
                if area > ZERO:
                    total += np.float32(exp(-div(square, spreads[k] * area)))
                elif square == ZERO:
                    total += ONE
    return div(total, np.float32(max(found, 1))) if area >= ZERO else ZERO


@device
def box_area(people, n, person):
    """Of the box around a person's found joints; -1 if none is found."""
    found = False
    left, right, top, bottom = ZERO, ZERO, ZERO, ZERO
    for k in range(people.shape[2]):
        if people[n, person, k, 2] > ZERO:
            x, y = people[n, person, k, 0], people[n, person, k, 1]
            left, right = min(left, x) if found else x, max(right, x) if found else x
            top, bottom = min(top, y) if found else y, max(bottom, y) if found else y
            found = True
    return (right - left) * (bottom - top) if found else -ONE


@functools.cache
def filter_kernel(limit: int, threads: int = THREADS) -> Any:
    """The kernel for up to `limit` people."""
    repeats_shape = (limit, limit)

    @cuda.jit
    def filter_people(draft, draft_scores, draft_count, spreads, thresholds, keypoints, scores, count):
        """One block = one image; drafts as `group` and `refine` leave them. thresholds: min_joint, OKS (2: keep all).

        Writes all of keypoints (N, limit, K, 3), scores (N, limit) and count (N,), zeros behind the kept people.
        """
        repeats = cuda.shared.array(repeats_shape, np.bool_)
        areas = cuda.shared.array(limit, np.float32)
        own_scores = cuda.shared.array(limit, np.float32)
        ranked = cuda.shared.array(limit, np.int32)  # the person of each rank, then of each row
        keeps = cuda.shared.array(limit, np.bool_)
        t, n = cuda.threadIdx.x, cuda.blockIdx.x
        people, joints = draft_count[n], draft.shape[2]
        if t < people:
            areas[t] = box_area(draft, n, t)
            own_scores[t] = draft_scores[n, t]
            keeps[t] = False
        cuda.syncthreads()
        if t < people:
            rank = 0
            for p in range(people):
                if own_scores[p] > own_scores[t] or (own_scores[p] == own_scores[t] and p < t):
                    rank += 1
            ranked[rank] = t
        for i in range(t, people * people, threads):
            p, q = i // people, i % people
            repeats[p, q] = thresholds[1] <= ONE and oks(draft, n, p, q, areas[q], spreads) > thresholds[1]
        cuda.syncthreads()
        for rank in range(people):
            p = ranked[rank]
            if not cuda.syncthreads_or(np.int32(t < people and keeps[t] and repeats[p, t])) and t == p:
                keeps[t] = True
            cuda.syncthreads()
        kept = cuda.syncthreads_count(np.int32(t < people and keeps[t]))
        place = 0
        if t < people and keeps[t]:
            for p in range(t):
                place += 1 if keeps[p] else 0
            ranked[place] = t
            scores[n, place] = own_scores[t]
        if kept <= t < limit:
            scores[n, t] = ZERO
        if t == 0:
            count[n] = kept
        cuda.syncthreads()
        for i in range(t, limit * joints, threads):
            p, k = i // joints, i % joints
            x, y, value = ZERO, ZERO, ZERO
            if p < kept and draft[n, ranked[p], k, 2] >= thresholds[0]:
                x, y, value = draft[n, ranked[p], k, 0], draft[n, ranked[p], k, 1], draft[n, ranked[p], k, 2]
            keypoints[n, p, k, 0], keypoints[n, p, k, 1], keypoints[n, p, k, 2] = x, y, value

    return filter_people
