# ruff: noqa: PLR0912, PLR0915, PLR0917 - a kernel is one function over many arrays, without keywords; Numba types it
# mypy: disable-error-code="no-untyped-def, no-untyped-call"
"""The output filter: duplicates by OKS dropped, then weak joints zeroed. Launched only where one of them is asked for.

Work for P people of K joints: P^2 x K pairs of joints at some 20 operations and an exponential, over one block (K =
17: 340, 34 k and 310 k operations for 1, 10 and 30 people), then P rounds of two barriers; 12 x K bytes a person in,
and as many out for max_people: 6 to 12 KB at 30. Neighbouring threads copy neighbouring keypoints.
"""

from __future__ import annotations

import functools
from math import exp

import numpy as np

from kernels.cuda._cuda import Kernel, cuda, device, div, kernel, mad, u32
from kernels.cuda.maps import ZERO

THREADS = 512  # 30 people are two pairs a thread
ONE = np.float32(1)


def shared_bytes(limit: int, joints: int) -> int:
    """Shared memory of one block."""
    return 12 * limit * joints + 4 * joints + limit * (4 * 4 + 4 * -(-limit // 32)) + 64


@device
def oks(people, joints, person, reference, area, sharpness):
    """How much of `person` the stronger `reference` explains, 0 to 1: as in tests/reference/decode.py, in float32.

    people: flat (P, K, 3); sharpness (K,): 1 / (8 sigma^2). area is the reference's: negative if it has no joint.
    """
    per_area = div(-ONE, area) if area > ZERO else ZERO
    found, k = np.int32(0), np.int32(0)
    total = ZERO
    at, other = np.int32(person * joints * 3), np.int32(reference * joints * 3)
    while k < joints:
        own, its = np.uint64(u32(at)), np.uint64(u32(other))
        if people[own + np.uint64(2)] > ZERO:
            found = mad(found, 1, 1)
            if people[its + np.uint64(2)] > ZERO:
                dx = people[own] - people[its]
                dy = people[own + np.uint64(1)] - people[its + np.uint64(1)]
                square = dx * dx + dy * dy
                if area > ZERO:
                    total += np.float32(exp(square * sharpness[u32(k)] * per_area))
                elif square == ZERO:
                    total += ONE
        k, at, other = mad(k, 1, 1), mad(at, 1, 3), mad(other, 1, 3)
    return div(total, np.float32(found if found > 0 else 1)) if area >= ZERO else ZERO


@device
def box_area(people, joints, person):
    """Of the box around a person's found joints; -1 if none is found."""
    found, k = False, np.int32(0)
    left, right, top, bottom = ZERO, ZERO, ZERO, ZERO
    at = np.int32(person * joints * 3)
    while k < joints:
        own = np.uint64(u32(at))
        if people[own + np.uint64(2)] > ZERO:
            x, y = people[own], people[own + np.uint64(1)]
            left, right = min(left, x) if found else x, max(right, x) if found else x
            top, bottom = min(top, y) if found else y, max(bottom, y) if found else y
            found = True
        k, at = mad(k, 1, 1), mad(at, 1, 3)
    return (right - left) * (bottom - top) if found else -ONE


@functools.cache
def filter_kernel(limit: int, joints: int, threads: int = THREADS) -> Kernel:
    """The kernel for up to `limit` people of `joints` joints."""
    words = -(-limit // 32)  # a bit for each person
    fields, masks_shape = limit * joints * 3, limit * words

    @cuda.jit(device=True)
    def choose(people, ranked, repeats, kept):
        """Strongest first, keep a person who repeats nobody kept: kept gets their bits. One thread calls."""
        for word in range(words):
            kept[word] = 0
        rank = np.int32(0)
        while rank < people:
            p = ranked[u32(rank)]
            unlike = True
            for word in range(words):
                unlike = unlike and repeats[u32(mad(p, words, word))] & kept[word] == 0
            if unlike:
                kept[u32(u32(p) >> u32(5))] |= u32(1 << (p & 31))
            rank = mad(rank, 1, 1)

    @kernel
    def filter_people(draft, draft_scores, draft_count, sharpness, limits, keypoints, scores, count):
        """One block = one image; drafts as `group` and `refine` leave them. limits: min_joint, OKS (2: keep all).

        Writes all of keypoints, flat (N, limit, K, 3) as draft is, scores (N, limit) and count (N,), zeros behind the
        kept people.
        """
        staged = cuda.shared.array(fields, np.float32)
        own_sharpness = cuda.shared.array(joints, np.float32)
        areas = cuda.shared.array(limit, np.float32)
        own_scores = cuda.shared.array(limit, np.float32)
        ranked = cuda.shared.array(limit, np.int32)  # the person of each rank
        chosen = cuda.shared.array(limit, np.int32)  # then of each row
        repeats = cuda.shared.array(masks_shape, np.uint32)  # whom a person repeats, as bits
        kept_bits = cuda.shared.array(words, np.uint32)
        t, n = np.int32(cuda.threadIdx.x), np.int32(cuda.blockIdx.x)
        people, first = draft_count[n], mad(n, fields, 0)
        min_joint, most_alike = limits

        i = t
        while i < people * joints * 3:
            staged[u32(i)] = draft[u32(mad(first, 1, i))]
            i = mad(i, 1, threads)
        i = t
        while i < people * words:
            repeats[u32(i)] = 0
            i = mad(i, 1, threads)
        if t < joints:
            own_sharpness[t] = sharpness[t]
        if t < people:
            own_scores[t] = draft_scores[n, t]
        cuda.syncthreads()

        if t < people:
            areas[t] = box_area(staged, joints, t)
            rank, p = np.int32(0), np.int32(0)
            while p < people:
                stronger = own_scores[p] > own_scores[t] or (own_scores[p] == own_scores[t] and p < t)
                rank, p = mad(stronger, 1, rank), mad(p, 1, 1)
            ranked[rank] = t
        cuda.syncthreads()

        if most_alike <= ONE:
            i = t
            while i < people * people:
                p = np.int32(u32(i) // u32(people))
                q = mad(p, -people, i)
                if p != q and oks(staged, joints, p, q, areas[q], own_sharpness) > most_alike:
                    cuda.atomic.or_(repeats, mad(p, words, q >> 5), u32(1 << (q & 31)))
                i = mad(i, 1, threads)
        cuda.syncthreads()

        if t == 0:
            choose(people, ranked, repeats, kept_bits)
        cuda.syncthreads()
        kept, place = np.int32(0), np.int32(0)
        for word in range(words):
            bits = kept_bits[word]
            kept = mad(kept, 1, cuda.popc(bits))
            before = t - 32 * word
            if before >= 32:
                place = mad(place, 1, cuda.popc(bits))
            elif before > 0:
                place = mad(place, 1, cuda.popc(u32(bits & u32((1 << before) - 1))))
        if t < people and kept_bits[u32(t) >> u32(5)] >> u32(t & 31) & u32(1):
            chosen[place] = t
            scores[n, place] = own_scores[t]
        if kept <= t and t < limit:  # noqa: PLR1716 - chained, Numba computes both in 64 bits
            scores[n, t] = ZERO
        if t == 0:
            count[n] = kept
        cuda.syncthreads()

        i = t
        while i < limit * joints:
            p = np.int32(u32(i) // u32(joints))
            x, y, value = ZERO, ZERO, ZERO
            if p < kept:
                own = np.uint64(u32(mad(mad(chosen[p], joints, mad(p, -joints, i)), 3, 0)))
                if staged[own + np.uint64(2)] >= min_joint:
                    x, y, value = staged[own], staged[own + np.uint64(1)], staged[own + np.uint64(2)]
            to = np.uint64(u32(mad(i, 3, first)))
            keypoints[to], keypoints[to + np.uint64(1)], keypoints[to + np.uint64(2)] = x, y, value
            i = mad(i, 1, threads)

    return filter_people
