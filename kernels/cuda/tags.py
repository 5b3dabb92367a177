# mypy: disable-error-code="no-untyped-def, no-untyped-call"
"""The float32 arithmetic of tags: distances and means, in the order of the authors' NumPy. No kernel here."""

from __future__ import annotations

import numpy as np

from kernels.cuda._cuda import add32, device, div, larger, mad, mul, rint, smaller, sqrt, u32
from kernels.cuda.maps import ZERO
from kernels.rules import FAR_AWAY, SLACK

SHRINK = np.float32(1) - SLACK


@device
def tag_distance(a0, a1, b0, b1):
    """Between two tags of T = 2 dimensions, at most 255, and 255 for NaN. With T = 1 the second pair is 0, 0."""
    d0, d1 = a0 - b0, a1 - b1
    found = sqrt(mul(d0, d0) + mul(d1, d1))
    return found if found < FAR_AWAY else FAR_AWAY


@device
def rounded_distance(a0, a1, b0, b1, values):
    """rint(tag_distance): for one value the root of the square is its magnitude, except for some below 1e-19."""
    if values == 1:
        return rint(smaller(abs(a0 - b0), FAR_AWAY))
    return rint(tag_distance(a0, a1, b0, b1))


@device
def tag_gap(low, high, tag):
    """At most the distance of `tag` from any tag in low..high as interpolation rounds it; 0 where that is unknown."""
    gap = larger(low - tag, tag - high) - SLACK * (abs(low) + abs(high))
    return gap if gap > ZERO else ZERO  # NaN compares false


@device
def rounded_gap(gap0, gap1, values):
    """At most `rounded_distance`, by the gaps of both values."""
    gap = gap0 if values == 1 else sqrt(mul(gap0, gap0) + mul(gap1, gap1))
    return rint(smaller(mul(gap, SHRINK), FAR_AWAY))


@device
def tag_sum(table, column, stride, n, pairwise):
    """The float32 sum of n entries of a flat table's column in NumPy's order: one by one, from 8 on in eight sums."""
    total = ZERO
    done = np.int32(0)
    at = np.int32(column)
    if pairwise and n >= 8:
        a, b, c, d, e, f, g, h = eight_of(table, at, stride)
        done, at = add32(done, 8), mad(stride, 8, at)
        while done + 8 <= n:
            i, j, k, l, o, p, q, r = eight_of(table, at, stride)  # noqa: E741
            a, b, c, d, e, f, g, h = a + i, b + j, c + k, d + l, e + o, f + p, g + q, h + r
            done, at = add32(done, 8), mad(stride, 8, at)
        total = ((a + b) + (c + d)) + ((e + f) + (g + h))
    while done < n:
        total += table[u32(at)]
        done, at = add32(done, 1), add32(at, stride)
    return total


@device
def eight_of(table, at, stride):
    """Eight consecutive entries of a column."""
    first, step = np.uint64(u32(at)), np.uint64(stride)
    second, third, fourth = first + step, first + np.uint64(2) * step, first + np.uint64(3) * step
    half = np.uint64(4) * step
    return (
        table[first],
        table[second],
        table[third],
        table[fourth],
        table[first + half],
        table[second + half],
        table[third + half],
        table[fourth + half],
    )


@device
def tag_mean(table, column, stride, n, pairwise):
    """The float32 mean, added in the same order."""
    return div(tag_sum(table, column, stride, n, pairwise), np.float32(n))
