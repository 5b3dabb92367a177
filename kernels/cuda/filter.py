# ruff: noqa: PLR0915, PLR0917 - Numba's functions have no keywords, and stand in the one that makes the kernel
# mypy: disable-error-code="no-untyped-def, no-untyped-call"
"""The output filter: duplicates by OKS dropped, then weak joints zeroed. Launched only if one of them is asked for.

People are compared in pairs, one thread each: 30 people are 435 pairs. The weaker of a pair repeats the stronger if
its OKS with that one is above max_oks. A person is kept unless it repeats a kept one, which is decided in falling
order of scores, and only for those who repeat anybody.

Work for P people of K joints: P^2 / 2 x K pairs of joints at some 20 operations and an exponential, over one block (K
= 17: 8 k and 130 k operations for 10 and 30 people); 12 x K bytes a person in, and as many out for max_people: 6 KB at
30. Neighbouring threads copy neighbouring keypoints.
"""

from __future__ import annotations

import functools
from math import exp

import numpy as np

from kernels.cuda._cuda import (
    WARP,
    Kernel,
    add32,
    bits_float,
    cuda,
    device,
    div,
    float_bits,
    kernel,
    larger,
    mad,
    mul32,
    set_before,
    shuffle,
    smaller,
    split_index,
    sub32,
    u32,
)
from kernels.cuda.maps import ZERO
from kernels.cuda.packed import count_place, scores_place

THREADS = 512  # a thread for each pair of 30 people
LANES = 8  # of a person while it is copied: neighbours in a warp
ONE = np.float32(1)
NOWHERE = np.float32(np.inf)


def shared_bytes(max_people: int, joints: int) -> int:
    """Shared memory of one block."""
    return 12 * max_people * joints + 4 * joints + max_people * (5 * 4 + 4 * -(-max_people // 32)) + 64


@device
def oks(people, joints, person, reference, area, sharpness):
    """The OKS of `person` against the stronger `reference`, 0 to 1: as in tests/reference/decode.py, in float32.

    people: flat (P, K, 3); sharpness (K,): 1 / (8 sigma^2). area is the reference's: negative if it has no joint.
    """
    per_area = div(-ONE, area) if area > ZERO else ZERO
    found, k = np.int32(0), np.int32(0)
    total = ZERO
    at, other = np.int32(person * joints * 3), np.int32(reference * joints * 3)
    while k < joints:
        own, its = np.uint64(u32(at)), np.uint64(u32(other))
        if people[own + np.uint64(2)] > ZERO:
            found = add32(found, 1)
            if people[its + np.uint64(2)] > ZERO:
                dx = people[own] - people[its]
                dy = people[own + np.uint64(1)] - people[its + np.uint64(1)]
                square = dx * dx + dy * dy
                if area > ZERO:
                    total += np.float32(exp(square * sharpness[u32(k)] * per_area))
                elif square == ZERO:
                    total += ONE
        k, at, other = add32(k, 1), add32(at, 3), add32(other, 3)
    return div(total, np.float32(found if found > 0 else 1)) if area >= ZERO else ZERO


@device
def box_area(left, right, top, bottom, lane):
    """The area of the box around the points of LANES neighbouring lanes, each with a box of its own; -1 if empty."""
    for i in range(3):
        other = lane ^ (LANES >> 1 >> i)
        left, right = smaller(left, shuffle(left, other)), larger(right, shuffle(right, other))
        top, bottom = smaller(top, shuffle(top, other)), larger(bottom, shuffle(bottom, other))
    return (right - left) * (bottom - top) if left <= right else -ONE


@functools.cache
def filter_kernel(max_people: int, joints: int, threads: int = THREADS) -> Kernel:
    """The kernel for up to `max_people` people of `joints` joints; threads: a multiple of LANES."""
    words = -(-max_people // 32)  # a bit for each person
    fields, masks_shape = max_people * joints * 3, max_people * words
    lanes, warps = min(WARP, threads), max(1, threads // WARP)

    @cuda.jit(device=True)
    def load_people(draft, n, people, staged, areas):
        """Copy the draft of image n to `staged`, and find the area of each person's box; -1 if no joint is found."""
        t = np.int32(cuda.threadIdx.x)
        lane, start = t & (LANES - 1), np.int32(0)
        while start < people:
            person = add32(start, t // LANES)
            left, right, top, bottom = NOWHERE, -NOWHERE, NOWHERE, -NOWHERE
            k = lane if person < people else np.int32(joints)
            while k < joints:
                at = mul32(mad(person, joints, k), 3)
                source, to = np.uint64(u32(mad(n, fields, at))), np.uint64(u32(at))
                x, y, value = draft[source], draft[source + np.uint64(1)], draft[source + np.uint64(2)]
                staged[to], staged[to + np.uint64(1)], staged[to + np.uint64(2)] = x, y, value
                if value > ZERO:
                    left, right = smaller(left, x), larger(right, x)
                    top, bottom = smaller(top, y), larger(bottom, y)
                k = add32(k, LANES)
            area = box_area(left, right, top, bottom, t & (WARP - 1))
            if lane == 0 and person < people:
                areas[u32(person)] = area
            start = add32(start, threads // LANES)

    @cuda.jit(device=True)
    def compare_pairs(staged, areas, scores, sharpness, max_oks, people, ranks, repeats):
        """ranks, zeroed before: how many are stronger than each; repeats, too: bits of whom each repeats.

        Returns whether this thread found one who repeats another. A thread has two people who are `apart` places apart
        around a circle, on which each two are once.
        """
        t = np.int32(cuda.threadIdx.x)
        found = np.int32(0)
        apart = add32(t // WARP, 1)
        while mul32(apart, 2) <= people:
            ends = apart if mul32(apart, 2) == people else people  # half around, the two would meet twice
            p = t & (WARP - 1)
            while p < ends:
                q = add32(p, apart)
                q = q if q < people else sub32(q, people)
                is_weaker = scores[u32(p)] < scores[u32(q)] or (scores[u32(p)] == scores[u32(q)] and p > q)
                weak, strong = (p, q) if is_weaker else (q, p)
                cuda.atomic.add(ranks, u32(weak), 1)
                if max_oks <= ONE and oks(staged, joints, weak, strong, areas[u32(strong)], sharpness) > max_oks:
                    cuda.atomic.or_(repeats, u32(mad(weak, words, strong >> 5)), u32(1 << (strong & 31)))
                    found = np.int32(1)
                p = add32(p, lanes)
            apart = add32(apart, warps)
        return found

    @cuda.jit(device=True)
    def choose(people, ranked, repeats, kept):
        """Set in kept, strongest first, the bits of all who repeat no kept person. One thread calls."""
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
            rank = add32(rank, 1)

    @cuda.jit(device=True)
    def kept_before(person, kept):
        """How many of the kept come before a person; all of them for one beyond the last."""
        count = np.int32(0)
        for word in range(words):
            before = mad(word, -32, person)
            if before >= 32:
                count = add32(count, cuda.popc(kept[word]))
            elif before > 0:
                count = add32(count, set_before(kept[word], before))
        return count

    @cuda.jit(device=True)
    def write_people(staged, chosen, kept, min_joint, n, packed):
        """The keypoints of image n: the chosen people without their weak joints, zeros behind them."""
        i = np.int32(cuda.threadIdx.x)
        while i < max_people * joints:
            p, k = split_index(i, joints)
            x, y, value = ZERO, ZERO, ZERO
            if p < kept:
                own = np.uint64(u32(mul32(mad(chosen[u32(p)], joints, k), 3)))
                if staged[own + np.uint64(2)] >= min_joint:
                    x, y, value = staged[own], staged[own + np.uint64(1)], staged[own + np.uint64(2)]
            to = np.uint64(u32(mad(n, fields, mul32(i, 3))))
            packed[to], packed[to + np.uint64(1)], packed[to + np.uint64(2)] = x, y, value
            i = add32(i, threads)

    @kernel
    def filter_people(draft, sharpness, thresholds, packed):
        """One block = one image. thresholds: min_joint, max_oks (2: keep all).

        draft: packed, as `group` and `refine` leave it. Writes all of packed, zeros behind the kept people.
        """
        staged = cuda.shared.array(fields, np.float32)
        own_sharpness = cuda.shared.array(joints, np.float32)
        areas = cuda.shared.array(max_people, np.float32)
        scores = cuda.shared.array(max_people, np.float32)
        ranks = cuda.shared.array(max_people, np.int32)
        ranked = cuda.shared.array(max_people, np.int32)  # the person of each rank
        chosen = cuda.shared.array(max_people, np.int32)  # then of each row
        repeats = cuda.shared.array(masks_shape, np.uint32)  # whom a person repeats, as bits
        kept_bits = cuda.shared.array(words, np.uint32)
        t, n, frames = np.int32(cuda.threadIdx.x), np.int32(cuda.blockIdx.x), np.int32(cuda.gridDim.x)
        scores_at, count_at = scores_place(n, frames, max_people, fields), count_place(n, frames, max_people, fields)
        people = float_bits(draft[u32(count_at)])
        min_joint, max_oks = thresholds

        load_people(draft, n, people, staged, areas)
        if t < joints:
            own_sharpness[t] = sharpness[t]
        if t < people:
            scores[t], ranks[t] = draft[u32(add32(scores_at, t))], 0
            for word in range(words):
                repeats[u32(mad(t, words, word))] = 0
        cuda.syncthreads()
        found = compare_pairs(staged, areas, scores, own_sharpness, max_oks, people, ranks, repeats)
        place, kept, stays = t, people, t < people
        if cuda.syncthreads_or(found):
            if t < people:
                ranked[u32(ranks[t])] = t
            cuda.syncthreads()
            if t == 0:
                choose(people, ranked, repeats, kept_bits)
            cuda.syncthreads()
            place, kept = kept_before(t, kept_bits), kept_before(np.int32(32 * words), kept_bits)
            stays = stays and kept_bits[u32(t) >> u32(5)] >> u32(t & 31) & u32(1) != 0
        if stays:
            chosen[u32(place)] = t
            packed[u32(add32(scores_at, place))] = scores[t]
        if kept <= t and t < max_people:  # noqa: PLR1716 - chained, Numba computes both in 64 bits
            packed[u32(add32(scores_at, t))] = ZERO
        if t == 0:
            packed[u32(count_at)] = bits_float(kept)
        cuda.syncthreads()
        write_people(staged, chosen, kept, min_joint, n, packed)

    return filter_people
