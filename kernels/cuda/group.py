# ruff: noqa: PLR0912, PLR0915, PLR0917 - a kernel is one function over many arrays, without keywords; Numba types it
# mypy: disable-error-code="no-untyped-def, no-untyped-call"
"""Candidates into people: joint by joint, one block an image; then scores, and the first filter.

What it touches more than once lies in shared memory, or in a register of the thread that owns it: thread r has
candidate r of the current joint, thread p the tags of person p. The next joint's candidates are loaded while the
current one is matched.

Work at K = 17, T = 1 and 1, 10, 30 people: 20 bytes a candidate in, 20 bytes a joint found and 16 K x max_people bytes
of zeros and keypoints out: 9, 15 and 28 KB at max_people = 30. Candidates x people pairs at some 35 operations: 0.6 k,
60 k and 540 k. Neither is the bound, but the chain of a dozen barriers and two loops over the pairs' columns a joint,
and some 10 barriers for each candidate that collides (`assignment`). Neighbouring threads read neighbouring
candidates, field by field, and write neighbouring keypoints; a joint's members lie K floats apart, one store each.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from kernels.cuda._cuda import cuda, div
from kernels.cuda.assignment import THREADS, assign, fixed_point, lanes_for, pair_code, pair_stride
from kernels.cuda.maps import ZERO
from kernels.cuda.tags import tag_distance, tag_mean

UNSEARCHED = -(2**63)  # below every key of `refine`


def shared_bytes(limit: int, joints: int, threads: int = THREADS) -> int:
    """Shared memory of one block."""
    lanes = lanes_for(limit)
    by_lane = 2 * 8 + 6 * 4 + 3 * 2
    return 2 * limit * pair_stride(limit) + 4 * joints * limit + by_lane * lanes + 8 * threads + 64


@cuda.jit(device=True)
def rank_of(flag, flags):
    """How many threads before this one raise their flag. flags (int16) has an entry for each thread that may."""
    t = cuda.threadIdx.x
    if t < flags.shape[0]:
        flags[t] = 1 if flag else 0
    cuda.syncthreads()
    rank = 0
    if flag:
        for i in range(t):
            rank += flags[i]
    cuda.syncthreads()
    return rank


@functools.cache
def group_kernel(limit: int, joints: int, mirrored: bool, threads: int = THREADS) -> Any:
    """The kernel for up to `limit` people of `joints` joints; mirrored: T = 2."""
    lanes = lanes_for(limit)
    codes_shape, history_shape = (limit, pair_stride(limit)), (joints, limit)
    claims_shape = lanes + 1

    @cuda.jit(device=True)
    def write_people(n, people, least, members, history, chosen, listed, missing, searches, keypoints, scores, count):
        """Score everyone, keep who has at least `least`, in order; list what they miss. listed: one int32."""
        t = cuda.threadIdx.x
        for i in range(t, people * joints, threads):
            history[i % joints, i // joints] = members[n, 2, i]
        cuda.syncthreads()
        score = tag_mean(history, t, joints, True) if t < people else ZERO
        stays = t < people and score >= least
        kept = cuda.syncthreads_count(np.int32(stays))
        row = rank_of(stays, chosen)
        if stays:
            chosen[row] = t
            scores[n, row] = score
        if kept <= t < limit:
            scores[n, t] = ZERO
        if t == 0:
            count[n] = kept
            listed[0] = 0
        cuda.syncthreads()
        for i in range(t, limit * joints, threads):
            p, k = i // joints, i % joints
            x, y, value = ZERO, ZERO, ZERO
            if p < kept:
                source = chosen[p] * joints + k
                value = members[n, 2, source]
                if value > ZERO:
                    x, y = members[n, 0, source], members[n, 1, source]
                else:
                    entry = 1 + cuda.atomic.add(listed, 0, 1)
                    missing[n, entry, 0], missing[n, entry, 1] = i, chosen[p]
                    searches[n, 0, i], searches[n, 1, i] = UNSEARCHED, 0
            keypoints[n, p, k, 0], keypoints[n, p, k, 1], keypoints[n, p, k, 2] = x, y, value
        cuda.syncthreads()
        if t == 0:
            missing[n, 0, 0] = listed[0]

    @cuda.jit
    def group_people(found, totals, orders, thresholds, members, missing, searches, keypoints, scores, count):
        """One block = one image. thresholds: tag_threshold, min_score.

        Writes all of keypoints (N, limit, K, 3), scores (N, limit) and count (N,), zeros behind the kept people. For
        `refine`: members (N, FIELDS, limit * K), person by joint before the filter, where field 2, the value, is 0 for
        a missing joint, whose other fields are undefined; missing (N, 1 + limit * K, 2), first their number, then, in
        any order, the place (person * K + joint) in keypoints and the person in members; and searches (N, 2,
        limit * K), reset at those places.
        """
        codes = cuda.shared.array(codes_shape, np.uint16)
        history = cuda.shared.array(history_shape, np.float32)  # each person's tags as they joined (T = 1); then values
        u = cuda.shared.array(lanes, np.int64)
        v = cuda.shared.array(lanes, np.int64)
        keys = cuda.shared.array(threads, np.int64)
        claims = cuda.shared.array(claims_shape, np.int32)
        value_steps = cuda.shared.array(lanes, np.int32)
        row_tag0 = cuda.shared.array(lanes, np.float32)
        row_tag1 = cuda.shared.array(lanes, np.float32)
        person_tag0 = cuda.shared.array(lanes, np.float32)
        person_tag1 = cuda.shared.array(lanes, np.float32)
        owner = cuda.shared.array(lanes, np.int16)
        column_of = cuda.shared.array(lanes, np.int16)
        chosen = cuda.shared.array(lanes, np.int16)  # the row that person p takes, -1 for none; elsewhere scratch

        t, n = cuda.threadIdx.x, cuda.blockIdx.x
        for i in range(t, limit * joints, threads):
            members[n, 2, i] = ZERO
        people = 0
        joined = 0  # person t's tags so far, and (T = 2) their sums
        sum0, sum1 = ZERO, ZERO
        next_rows = totals[n, 0]
        next_x, next_y, next_value, next_tag0, next_tag1 = ZERO, ZERO, ZERO, ZERO, ZERO
        if t < next_rows:
            next_x, next_y, next_value = found[n, 0, 0, t], found[n, 0, 1, t], found[n, 0, 2, t]
            next_tag0, next_tag1 = found[n, 0, 3, t], found[n, 0, 4, t]
        cuda.syncthreads()

        for step in range(joints):
            rows, x, y, value, tag0, tag1 = next_rows, next_x, next_y, next_value, next_tag0, next_tag1
            if step + 1 < joints:
                next_rows = totals[n, step + 1]
                if t < next_rows:
                    next_x, next_y = found[n, step + 1, 0, t], found[n, step + 1, 1, t]
                    next_value = found[n, step + 1, 2, t]
                    next_tag0, next_tag1 = found[n, step + 1, 3, t], found[n, step + 1, 4, t]
            if rows == 0:
                continue
            if t < rows:
                row_tag0[t], row_tag1[t] = tag0, tag1
                value_steps[t] = fixed_point(value)
            cuda.syncthreads()

            person = limit  # whom candidate t joins or opens; limit: nobody
            joins = False
            if people > 0:
                row = t % lanes
                if row < rows:
                    for c in range(t // lanes, people, threads // lanes):
                        far = tag_distance(row_tag0[row], row_tag1[row], person_tag0[c], person_tag1[c])
                        codes[row, c] = pair_code(far)
                cuda.syncthreads()
                assign(rows, people, lanes, codes, value_steps, u, v, owner, column_of, chosen, keys, claims)
                if t < rows and column_of[t] < people:
                    person = int(column_of[t])
                    joins = tag_distance(tag0, tag1, person_tag0[person], person_tag1[person]) < thresholds[0]
            opens = t < rows and not joins
            opened = cuda.syncthreads_count(np.int32(opens))
            if opened > 0:
                rank = rank_of(opens, chosen)
                if opens:
                    person = people + rank
            if t < lanes:
                chosen[t] = -1
            cuda.syncthreads()
            if t < rows and person < limit:
                chosen[person] = t
                place = person * joints + orders[1, step]
                members[n, 0, place], members[n, 1, place], members[n, 2, place] = x, y, value
                members[n, 3, place], members[n, 4, place] = tag0, tag1
            cuda.syncthreads()
            if t < limit and chosen[t] >= 0:
                new0, new1 = row_tag0[chosen[t]], row_tag1[chosen[t]]
                joined += 1
                if mirrored:
                    sum0 += new0
                    sum1 += new1
                    person_tag0[t], person_tag1[t] = div(sum0, np.float32(joined)), div(sum1, np.float32(joined))
                else:
                    history[joined - 1, t] = new0
                    person_tag0[t], person_tag1[t] = tag_mean(history, t, joined, True), ZERO
            people = min(limit, people + opened)
            cuda.syncthreads()

        least = thresholds[1]
        write_people(n, people, least, members, history, chosen, claims, missing, searches, keypoints, scores, count)

    return group_people
