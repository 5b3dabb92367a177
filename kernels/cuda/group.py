# ruff: noqa: PLR0915, PLR0917 - Numba's functions have no keywords, and stand in the one that makes the kernel
# mypy: disable-error-code="no-untyped-def, no-untyped-call"
"""Candidates into people: joint by joint, one warp an image; then scores, and the first filter.

A lane holds one candidate of the current joint and one person in registers, or several of each if max_people is above
32. It reads those of another lane by a shuffle. Shared memory holds what any lane may write, and a table of what each
person took of each joint. The next joint's candidates are loaded while the current ones are matched.

Work at K = 17, T = 1 and 1, 10, 30 people: 20 bytes a candidate in, 12 bytes x K x max_people out (7 KB at 30). Neither
that nor the arithmetic is the bound, but one warp's chain of instructions: benchmarks/kernels_ptx.md counts it.
Neighbouring lanes read neighbouring candidates, field by field, and write neighbouring keypoints.
"""

from __future__ import annotations

import functools

import numpy as np

from kernels.cuda._cuda import (
    WARP,
    Kernel,
    add32,
    bits_float,
    cuda,
    device,
    div,
    kernel,
    mad,
    mul32,
    set_before,
    smaller,
    split_index,
    u32,
    warp_ballot,
    warp_barrier,
)
from kernels.cuda.assignment import READ_AHEAD, assign_function, entry_function
from kernels.cuda.maps import ZERO
from kernels.cuda.packed import count_place, scores_place
from kernels.cuda.tags import tag_distance, tag_mean, tag_sum
from kernels.rules import FAR_AWAY

UNSEARCHED = -(2**63)  # below every key of `refine`
NOBODY = 255  # of a person and joint: no candidate was taken; candidates are at most 128
NOWHERE = np.float32(np.nan)  # the tag of a person who is not there: FAR_AWAY from all
X, Y, VALUE, TAG = 0, 1, 2, 3  # fields of a candidate; the second number of its tag comes last
FIELDS = 5


def shared_bytes(max_people: int, joints: int) -> int:
    """Shared memory of one block."""
    return joints * max_people * (1 + 3 * 4) + (max_people + READ_AHEAD) * 2 * 4 + max_people * 2 * 4 + 64


@device
def one_number(people, column):
    return people[column], ZERO


@device
def distance_of_one(people, own, other):
    """The distance of two tags of one number: its magnitude; the root of its square differs for some below 1e-19."""
    return smaller(abs(own[0] - other[0]), FAR_AWAY)


@device
def distance_of_two(people, own, other):
    return tag_distance(own[0], own[1], other[0], other[1])


@functools.cache
def walk_function(max_people: int, joints: int, paired: bool, lanes: int) -> Kernel:
    """`walk_joints`, which matches; arguments as those of `group_kernel`."""
    slots = -(-max_people // lanes)  # candidates, and people, of a lane
    person_joints = joints * max_people
    TAGS, MORE = np.uint64(person_joints), np.uint64(2 * person_joints)  # parts of a table, behind the values
    second = np.uint64(max_people + READ_AHEAD)  # of the tags' second numbers in an array of tags
    numbers = 2 if paired else 1
    distance = distance_of_two if paired else distance_of_one

    @device
    def two_numbers(people, column):
        return people[column], people[column + second]

    assign = assign_function(max_people, two_numbers if paired else one_number, distance, numbers, lanes)
    entry_of = entry_function(slots, lanes)

    @cuda.jit(device=True)
    def load_candidates(found, n, step, candidates):
        """Values and tags of the lane's candidates of one step. Entries beyond their number hold old values."""
        values, tags0, tags1 = candidates
        first = mad(mad(n, joints, step), FIELDS * max_people, cuda.threadIdx.x)
        for slot in range(slots):
            if mad(slot, lanes, cuda.threadIdx.x) < max_people:
                at = np.uint64(u32(mad(slot, lanes, first)))
                values[slot] = found[at + np.uint64(VALUE * max_people)]
                tags0[slot] = found[at + np.uint64(TAG * max_people)]
                if paired:
                    tags1[slot] = found[at + np.uint64((TAG + 1) * max_people)]

    @cuda.jit(device=True)
    def find_people(rows, people, threshold, candidates, means, centres, claims, arrivals):
        """arrivals[person] = the candidate (row) that joins it, or that opens it. Returns how many people there are."""
        values, tags0, tags1 = candidates
        t, opened = np.int32(cuda.threadIdx.x), np.int32(0)
        column_of = cuda.local.array(slots, np.int32)
        for slot in range(slots):
            column_of[slot] = max_people
        if people > 0:
            assign(rows, people, centres, (tags0, tags1), values, claims, column_of)
        for slot in range(slots):
            row, person = mad(slot, lanes, t), column_of[slot]
            mean = entry_of(means[0], person), entry_of(means[1], person) if paired else ZERO
            is_near = distance(centres, (tags0[slot], tags1[slot]), mean) < threshold
            opens = row < rows and not (person < people and is_near)
            bits = warp_ballot(opens)
            if opens:
                person = add32(people, add32(opened, set_before(bits, t)))
            opened = add32(opened, cuda.popc(bits))
            if row < rows and person < max_people:
                arrivals[u32(person)] = row
        return min(np.int32(max_people), add32(people, opened))

    @cuda.jit(device=True)
    def join_people(k, candidates, arrivals, tables, members, means, centres):
        """Each person's candidate of joint k into the tables, and its tag into the person's mean."""
        values, tags0, tags1 = candidates
        taken, table = tables
        joined, sums0, sums1 = members
        for slot in range(slots):
            own = mad(slot, lanes, cuda.threadIdx.x)
            row = arrivals[u32(own)] if own < max_people else np.int32(NOBODY)
            value, tag0 = entry_of(values, row), entry_of(tags0, row)
            tag1 = entry_of(tags1, row) if paired else ZERO
            if own < max_people:
                at = np.uint64(u32(mad(k, max_people, own)))
                arrivals[u32(own)], taken[at] = NOBODY, row
                table[at], table[at + TAGS] = value if row != NOBODY else ZERO, tag0
                if row != NOBODY:
                    n = add32(joined[slot], 1)
                    total = sums0[slot] + tag0
                    if paired:
                        table[at + MORE] = tag1
                        sums1[slot] += tag1
                        means[1][slot] = div(sums1[slot], np.float32(n))
                        centres[np.uint64(u32(own)) + second] = means[1][slot]
                    else:  # in the part of second numbers, in the order in which they joined: for `tag_sum`
                        table[u32(mad(n, max_people, add32(own, 2 * person_joints - max_people)))] = tag0
                        if n & 7 == 0:
                            total = tag_sum(table, add32(own, 2 * person_joints), max_people, n, True)
                    joined[slot], sums0[slot], means[0][slot] = n, total, div(total, np.float32(n))
                    centres[u32(own)] = means[0][slot]

    @cuda.jit(device=True)
    def walk_joints(found, totals, orders, n, threshold, centres, claims, arrivals, tables):
        """Match the candidates of each joint, in order, with the people so far. Returns how many people there are."""
        candidates = (
            cuda.local.array(slots, np.float32),
            cuda.local.array(slots, np.float32),
            cuda.local.array(slots, np.float32),
        )
        ahead = (
            cuda.local.array(slots, np.float32),
            cuda.local.array(slots, np.float32),
            cuda.local.array(slots, np.float32),
        )
        members = (
            cuda.local.array(slots, np.int32),
            cuda.local.array(slots, np.float32),
            cuda.local.array(slots, np.float32),
        )
        means = cuda.local.array(slots, np.float32), cuda.local.array(slots, np.float32)
        for slot in range(slots):
            for i in range(3):
                candidates[i][slot], ahead[i][slot] = ZERO, ZERO
            members[0][slot], members[1][slot], members[2][slot] = 0, ZERO, ZERO
            means[0][slot], means[1][slot] = NOWHERE, NOWHERE
        people, step = np.int32(0), np.int32(0)
        next_rows = totals[n, u32(step)]
        load_candidates(found, n, step, ahead)
        while step < joints:
            rows, k = next_rows, orders[1, u32(step)]
            for slot in range(slots):
                for i in range(3):
                    candidates[i][slot] = ahead[i][slot]
            step = add32(step, 1)
            if step < joints:
                next_rows = totals[n, u32(step)]
                load_candidates(found, n, step, ahead)
            if rows > 0:
                people = find_people(rows, people, threshold, candidates, means, centres, claims, arrivals)
            warp_barrier()
            join_people(k, candidates, arrivals, tables, members, means, centres)
            warp_barrier()
        return people

    return walk_joints


@functools.cache
def group_kernel(max_people: int, joints: int, paired: bool, lanes: int = WARP) -> Kernel:
    """The kernel for up to `max_people` people of `joints` joints; paired: a tag is two numbers. A block is one warp.

    lanes: of the warp; fewer, a power of two, serve the simulator.
    """
    slots = -(-max_people // lanes)  # people of a lane
    person_joints = joints * max_people
    table_size, tags_size = 3 * person_joints, 2 * (max_people + READ_AHEAD)
    TAGS, MORE = np.uint64(person_joints), np.uint64(2 * person_joints)  # parts of a table, behind the values
    walk_joints = walk_function(max_people, joints, paired, lanes)

    @device
    def centre_of(person, table):
        """The mean tag of a person's joints, in joint order. Moves them together in the table, over the tags."""
        n, more = np.int32(0), ZERO
        to, i = add32(person, person_joints), np.int32(person)
        for _ in range(np.int32(joints)):
            at = np.uint64(u32(i))
            if table[at] > ZERO:
                table[u32(to)] = table[at + TAGS]
                if paired:
                    more += table[at + MORE]
                to, n = add32(to, max_people), add32(n, 1)
            i = add32(i, max_people)
        return tag_mean(table, add32(person, person_joints), max_people, n, not paired), div(more, np.float32(n))

    @cuda.jit(device=True)
    def keep_strong(people, min_score, table, chosen, n, centres, packed):
        """The people whose score is at least min_score: chosen, scores, centres and their count, which it returns."""
        t, frames, kept = np.int32(cuda.threadIdx.x), np.int32(cuda.gridDim.x), np.int32(0)
        scores_at = scores_place(n, frames, max_people, 3 * person_joints)
        for slot in range(slots):
            person = mad(slot, lanes, t)
            stays, score = False, ZERO
            if person < people:
                score = tag_mean(table, person, max_people, np.int32(joints), True)
                stays = score >= min_score
            bits = warp_ballot(stays)
            if stays:
                p = add32(kept, set_before(bits, t))
                chosen[u32(p)] = person
                packed[u32(add32(scores_at, p))] = score
                centre = mad(mad(n, max_people, p), 2, 0)  # not mul32: it moves this, for compute capability 12.0
                centres[u32(centre)], centres[u32(add32(centre, 1))] = centre_of(person, table)
            kept = add32(kept, cuda.popc(bits))
        for slot in range(slots):
            p = mad(slot, lanes, t)
            if kept <= p and p < max_people:  # noqa: PLR1716 - chained, Numba computes both in 64 bits
                packed[u32(add32(scores_at, p))] = ZERO
        if t == 0:
            packed[u32(count_place(n, frames, max_people, 3 * person_joints))] = bits_float(kept)
        return kept

    @cuda.jit(device=True)
    def write_people(found, orders, kept, tables, chosen, n, packed):
        """The keypoints of image n: the chosen people's joints, zeros behind them."""
        i = np.int32(cuda.threadIdx.x)
        while i < person_joints:
            x, y, value = ZERO, ZERO, ZERO
            if i < kept * joints:
                p, k = split_index(i, joints)
                own = np.uint64(u32(mad(k, max_people, chosen[u32(p)])))
                value = tables[1][own]
                if value > ZERO:
                    at = mad(mad(n, joints, orders[2, u32(k)]), FIELDS * max_people, tables[0][own])
                    x, y = found[u32(at)], found[u32(mad(Y, max_people, at))]
            to = np.uint64(u32(mul32(mad(n, person_joints, i), 3)))
            packed[to], packed[to + np.uint64(1)], packed[to + np.uint64(2)] = x, y, value
            i = add32(i, lanes)

    @cuda.jit(device=True)
    def list_missing(kept, table, chosen, n, missing, searches):
        """The joints that the kept people lack, for `refine`."""
        t = np.int32(cuda.threadIdx.x)
        listed = np.int32(0)
        start = np.int32(0)
        while start < kept * joints:
            i = add32(start, t)
            lacks = False
            if i < kept * joints:
                p, k = split_index(i, joints)
                lacks = not table[u32(mad(k, max_people, chosen[u32(p)]))] > ZERO
            bits = warp_ballot(lacks)
            if lacks:
                to = add32(listed, add32(set_before(bits, t), 1))
                missing[u32(mad(n, 1 + person_joints, to))] = i
                to = mad(n, 2 * person_joints, i)
                searches[u32(to)], searches[u32(add32(to, person_joints))] = UNSEARCHED, 0
            listed = add32(listed, cuda.popc(bits))
            start = add32(start, lanes)
        if t == 0:
            missing[u32(mul32(n, 1 + person_joints))] = listed

    @kernel
    def group_people(found, totals, orders, thresholds, centres, missing, searches, packed):
        """One block, one warp = one image. found: flat; thresholds: tag_threshold, min_score.

        orders: each joint's twin, the joint of each step, the step of each joint.
        Writes all of packed, zeros behind the kept people. For `refine`, flat: centres (N, max_people, 2), each
        person's mean tag; missing (N, 1 + max_people * K), first their number, then the places person * K + joint that
        are missing; and searches (N, 2, max_people * K), reset at those places.
        """
        taken = cuda.shared.array(person_joints, np.uint8)  # of each joint and person: the row of its candidate
        table = cuda.shared.array(table_size, np.float32)  # values, 0 if there is none; tags; their second numbers
        people_tags = cuda.shared.array(tags_size, np.float32)  # each person's mean tag: first numbers, then second
        claims = cuda.shared.array(max_people, np.int32)
        arrivals = cuda.shared.array(max_people, np.int32)
        t, n = np.int32(cuda.threadIdx.x), np.int32(cuda.blockIdx.x)
        tag_threshold, min_score = thresholds
        tables = taken, table
        i = t
        while i < tags_size:
            people_tags[u32(i)] = NOWHERE
            if i < max_people:
                arrivals[u32(i)] = NOBODY
            i = add32(i, lanes)
        # no barrier: the first people are opened by the lanes that wrote their entries, and walk_joints has the next
        people = walk_joints(found, totals, orders, n, tag_threshold, people_tags, claims, arrivals, tables)
        chosen = claims  # no candidate claims a person any more
        kept = keep_strong(people, min_score, table, chosen, n, centres, packed)
        warp_barrier()
        write_people(found, orders, kept, tables, chosen, n, packed)
        list_missing(kept, table, chosen, n, missing, searches)

    return group_people
