# ruff: noqa: PLR0912, PLR0915, PLR0917 - a kernel is one function over many arrays, without keywords; Numba types it
# mypy: disable-error-code="no-untyped-def, no-untyped-call"
"""Candidates into people: joint by joint, one warp an image; then scores, and the first filter.

What it touches more than once lies in shared memory. A lane has a candidate of the current joint while it is matched,
and a person at the end; more than one of each where max_people is above 32. The next joint's candidates are loaded
while the current ones are matched. During the walk only one byte is kept for a person and joint: which candidate it
took. Nothing waits for a block.

Work at K = 17, T = 1 and 1, 10, 30 people: 20 bytes a candidate in, 12 bytes x K x max_people out (7 KB at 30). Neither
that nor the arithmetic is the bound, but one warp's chain of instructions: benchmarks/kernels_ptx.md counts it.
Neighbouring lanes read neighbouring candidates, field by field, and write neighbouring keypoints.
"""

from __future__ import annotations

import functools

import numpy as np

from kernels.cuda._cuda import WARP, Kernel, cuda, device, div, kernel, mad, smaller, u32, warp_ballot, warp_barrier
from kernels.cuda.assignment import assign_function, fixed_point
from kernels.cuda.maps import ZERO
from kernels.cuda.tags import tag_distance, tag_mean, tag_sum
from kernels.rules import FAR_AWAY

UNSEARCHED = -(2**63)  # below every key of `refine`
NOBODY = 255  # of a person and joint: no candidate was taken; candidates are at most 128
X, Y, VALUE, TAG = 0, 1, 2, 3  # fields of a candidate; the second tag comes last
FIELDS = 5


def shared_bytes(limit: int, joints: int, paired: bool) -> int:
    """Shared memory of one block."""
    tables = 3 if paired else 2
    return joints * limit * (1 + 4 * tables) + limit * (8 + 11 * 4) + 64


@device
def only_tag(pairs, row, column):
    """The distance of two tags of one value: the root of its square is its size, but for some below 1e-19."""
    own, _, people, _ = pairs
    return smaller(abs(own[row] - people[column]), FAR_AWAY)


@device
def both_tags(pairs, row, column):
    own0, own1, people0, people1 = pairs
    return tag_distance(own0[row], own1[row], people0[column], people1[column])


@functools.cache
def group_kernel(limit: int, joints: int, paired: bool, lanes: int = WARP) -> Kernel:
    """The kernel for up to `limit` people of `joints` joints; paired: a tag is two values. A block is one warp."""
    shares = -(-limit // lanes)  # candidates, and people, of a lane
    cells = joints * limit
    more_cells = cells if paired else 1
    pair_distance = both_tags if paired else only_tag
    assign = assign_function(limit, pair_distance, lanes)

    @device
    def joined_tags(person, tag0, tag1, joined, tables, sums, centres):
        """One more tag for a person: its mean anew, in the order of `tag_mean`."""
        n = mad(joined[u32(person)], 1, 1)
        joined[u32(person)] = n
        total = sums[0][u32(person)] + tag0
        if paired:
            more = sums[1][u32(person)] + tag1
            sums[1][u32(person)] = more
            centres[1][u32(person)] = div(more, np.float32(n))
        else:
            tables[0][u32(mad(n, limit, mad(person, 1, -limit)))] = tag0
            if n & 7 == 0:
                total = tag_sum(tables[0], person, limit, n, True)
        sums[0][u32(person)] = total
        centres[0][u32(person)] = div(total, np.float32(n))

    @cuda.jit(device=True)
    def lists_by_joint(found, orders, n, people, taken, values, tables):
        """values, tables (joints, limit) = the value and the tags of each person's joints, by joint; value 0: none."""
        i = np.int32(cuda.threadIdx.x)
        while i < people * joints:
            k = np.int32(u32(i) // u32(people))
            person = mad(k, -people, i)
            step = orders[2, u32(k)]
            row = u32(taken[u32(mad(step, limit, person))])
            value, tag0, tag1 = ZERO, ZERO, ZERO
            if row != NOBODY:
                at = mad(mad(mad(n, joints, step), FIELDS, 0), limit, row)
                value = found[u32(mad(VALUE, limit, at))]
                tag0, tag1 = found[u32(mad(TAG, limit, at))], found[u32(mad(TAG + 1, limit, at))]
            to = u32(mad(k, limit, person))
            values[to], tables[0][to] = value, tag0
            if paired:
                tables[1][to] = tag1
            i = mad(lanes, 1, i)
        warp_barrier()

    @device
    def centre_of(person, values, tables):
        """The mean tag of a person's joints, in joint order."""
        n, more = np.int32(0), ZERO
        to = np.int32(person)
        at = np.int32(person)
        for _ in range(np.int32(joints)):
            if values[u32(at)] > ZERO:
                tables[0][u32(to)] = tables[0][u32(at)]
                if paired:
                    more += tables[1][u32(at)]
                to, n = mad(to, 1, limit), mad(n, 1, 1)
            at = mad(at, 1, limit)
        return tag_mean(tables[0], person, limit, n, not paired), div(more, np.float32(n))

    @cuda.jit(device=True)
    def write_people(found, n, kept, chosen, orders, taken, values, keypoints):
        """keypoints of image n: the chosen people's joints, zeros behind them."""
        i = np.int32(cuda.threadIdx.x)
        while i < cells:
            x, y, value = ZERO, ZERO, ZERO
            if i < kept * joints:
                p = np.int32(u32(i) // u32(joints))
                k, person = mad(p, -joints, i), chosen[u32(p)]
                value = values[u32(mad(k, limit, person))]
                if value > ZERO:
                    step = orders[2, u32(k)]
                    row = u32(taken[u32(mad(step, limit, person))])
                    at = mad(mad(mad(n, joints, step), FIELDS, 0), limit, row)
                    x, y = found[u32(mad(X, limit, at))], found[u32(mad(Y, limit, at))]
            to = np.uint64(u32(mad(mad(n, cells, i), 3, 0)))
            keypoints[to], keypoints[to + np.uint64(1)], keypoints[to + np.uint64(2)] = x, y, value
            i = mad(lanes, 1, i)

    @cuda.jit(device=True)
    def list_missing(n, kept, chosen, values, missing, searches):
        """The joints that the kept people lack, for `refine`."""
        t = np.int32(cuda.threadIdx.x)
        listed = np.int32(0)
        start = np.int32(0)
        while start < kept * joints:
            i = mad(start, 1, t)
            lacks = False
            if i < kept * joints:
                p = np.int32(u32(i) // u32(joints))
                lacks = not values[u32(mad(mad(p, -joints, i), limit, chosen[u32(p)]))] > ZERO
            bits = warp_ballot(lacks)
            if lacks:
                below = np.int32(cuda.popc(u32(bits & u32((1 << t) - 1))))
                missing[u32(mad(n, 1 + cells, mad(listed, 1, mad(below, 1, 1))))] = i
                to = mad(n, 2 * cells, i)
                searches[u32(to)], searches[u32(mad(to, 1, cells))] = UNSEARCHED, 0
            listed = mad(listed, 1, cuda.popc(bits))
            start = mad(start, 1, lanes)
        if t == 0:
            missing[u32(mad(n, 1 + cells, 0))] = listed

    @kernel
    def group_people(found, totals, orders, limits, centres, missing, searches, keypoints, scores, count):
        """One block, one warp = one image. limits: tag_threshold, min_score. found and keypoints are flat.

        orders: each joint's twin, the joint of each step, the step of each joint.
        Writes all of keypoints (N, limit, K, 3), scores (N, limit) and count (N,), zeros behind the kept people. For
        `refine`, flat: centres (N, limit, 2), each person's mean tag; missing (N, 1 + limit * K), first their number,
        then the places person * K + joint that are missing; and searches (N, 2, limit * K), reset at those places.
        """
        taken = cuda.shared.array(cells, np.uint8)
        values = cuda.shared.array(cells, np.float32)
        table0 = cuda.shared.array(cells, np.float32)  # each person's tags as they joined (T = 1), then by joint
        table1 = cuda.shared.array(more_cells, np.float32)
        value_steps = cuda.shared.array(limit, np.int32)
        own_tag0 = cuda.shared.array(limit, np.float32)
        own_tag1 = cuda.shared.array(limit, np.float32)
        person_tag0 = cuda.shared.array(limit, np.float32)
        person_tag1 = cuda.shared.array(limit, np.float32)
        sum0 = cuda.shared.array(limit, np.float32)
        sum1 = cuda.shared.array(limit, np.float32)
        joined = cuda.shared.array(limit, np.int32)
        potentials = cuda.shared.array(limit, np.int64)
        owner = cuda.shared.array(limit, np.int32)
        column_of = cuda.shared.array(limit, np.int32)
        parents = cuda.shared.array(limit, np.int32)
        claims = cuda.shared.array(limit, np.int32)
        next_value = cuda.local.array(shares, np.float32)
        next_tag0 = cuda.local.array(shares, np.float32)
        next_tag1 = cuda.local.array(shares, np.float32)
        state = potentials, owner, column_of, parents, claims
        pairs = own_tag0, own_tag1, person_tag0, person_tag1
        tables, sums, means = (table0, table1), (sum0, sum1), (person_tag0, person_tag1)
        t, n = np.int32(cuda.threadIdx.x), np.int32(cuda.blockIdx.x)

        for share in range(shares):
            own = mad(share, lanes, t)
            next_value[share], next_tag0[share], next_tag1[share] = ZERO, ZERO, ZERO
            if own < limit:
                sum0[u32(own)], sum1[u32(own)], joined[u32(own)], person_tag1[u32(own)] = ZERO, ZERO, 0, ZERO
        people, next_rows = np.int32(0), np.int32(0)
        step = np.int32(-1)
        while step < joints:
            rows = next_rows
            if step >= 0 and rows > 0:
                for share in range(shares):
                    own = mad(share, lanes, t)
                    if own < limit:
                        own_tag0[u32(own)] = next_tag0[share]
                        if paired:
                            own_tag1[u32(own)] = next_tag1[share]
                        value_steps[u32(own)] = fixed_point(next_value[share])
            if step + 1 < joints:
                next_rows = totals[n, u32(mad(step, 1, 1))]
                for share in range(shares):
                    own = mad(share, lanes, t)
                    if own < limit:  # beyond next_rows something old
                        at = mad(mad(mad(n, joints, mad(step, 1, 1)), FIELDS, 0), limit, own)
                        next_value[share] = found[u32(mad(VALUE, limit, at))]
                        next_tag0[share] = found[u32(mad(TAG, limit, at))]
                        if paired:
                            next_tag1[share] = found[u32(mad(TAG + 1, limit, at))]
            if step >= 0:
                first = mad(step, limit, 0)
                for share in range(shares):
                    own = mad(share, lanes, t)
                    if own < limit:
                        taken[u32(mad(first, 1, own))] = NOBODY
                if rows > 0:
                    warp_barrier()
                    if people > 0:
                        assign(rows, people, pairs, value_steps, state)
                    opened = np.int32(0)
                    for share in range(shares):
                        row = mad(share, lanes, t)
                        person, joins = np.int32(limit), False
                        if row < rows and people > 0 and column_of[u32(row)] < people:
                            person = column_of[u32(row)]
                            joins = pair_distance(pairs, u32(row), u32(person)) < limits[0]
                        opens = row < rows and not joins
                        bits = warp_ballot(opens)
                        if opens:
                            below = cuda.popc(u32(bits & u32((1 << t) - 1)))
                            person = mad(people, 1, mad(opened, 1, below))
                        opened = mad(opened, 1, cuda.popc(bits))
                        if row < rows and person < limit:
                            taken[u32(mad(first, 1, person))] = row
                            tag1 = own_tag1[u32(row)] if paired else ZERO
                            joined_tags(person, own_tag0[u32(row)], tag1, joined, tables, sums, means)
                    people = min(np.int32(limit), mad(people, 1, opened))
                    warp_barrier()
            step = mad(step, 1, 1)

        warp_barrier()
        lists_by_joint(found, orders, n, people, taken, values, tables)
        kept = np.int32(0)
        for share in range(shares):
            person = mad(share, lanes, t)
            stays, score = False, ZERO
            if person < people:
                score = tag_mean(values, person, limit, np.int32(joints), True)
                stays = score >= limits[1]
            bits = warp_ballot(stays)
            if stays:
                p = mad(kept, 1, cuda.popc(u32(bits & u32((1 << t) - 1))))
                owner[u32(p)] = person
                scores[n, u32(p)] = score
                centre = mad(mad(n, limit, p), 2, 0)
                centres[u32(centre)], centres[u32(mad(centre, 1, 1))] = centre_of(person, values, tables)
            kept = mad(kept, 1, cuda.popc(bits))
        for share in range(shares):
            p = mad(share, lanes, t)
            if kept <= p and p < limit:  # noqa: PLR1716 - chained, Numba computes both in 64 bits
                scores[n, u32(p)] = ZERO
        if t == 0:
            count[n] = kept
        warp_barrier()
        write_people(found, n, kept, owner, orders, taken, values, keypoints)
        list_missing(n, kept, owner, values, missing, searches)

    return group_people
