# mypy: disable-error-code="no-untyped-def, no-untyped-call"
"""The float32 arithmetic of tags: distances and means, in the order of the authors' NumPy. No kernel here."""

from __future__ import annotations

import numpy as np

from kernels.cuda._cuda import device, div, mul, sqrt
from kernels.cuda.maps import ZERO
from kernels.rules import FAR_AWAY


@device
def tag_distance(a0, a1, b0, b1):
    """Between two tags of T = 2 dimensions, at most 255, and 255 for NaN. With T = 1 the second pair is 0, 0."""
    d0, d1 = a0 - b0, a1 - b1
    found = sqrt(mul(d0, d0) + mul(d1, d1))
    return found if found < FAR_AWAY else FAR_AWAY


@device
def tag_mean(table, column, n, pairwise):
    """The float32 mean of table[:n, column] in NumPy's order: one by one, or (pairwise) by eights from n = 8 on."""
    total = ZERO
    done = 0
    if pairwise and n >= 8:
        a, b, c, d = table[0, column], table[1, column], table[2, column], table[3, column]
        e, f, g, h = table[4, column], table[5, column], table[6, column], table[7, column]
        done = 8
        while done + 8 <= n:
            a, b = a + table[done, column], b + table[done + 1, column]
            c, d = c + table[done + 2, column], d + table[done + 3, column]
            e, f = e + table[done + 4, column], f + table[done + 5, column]
            g, h = g + table[done + 6, column], h + table[done + 7, column]
            done += 8
        total = ((a + b) + (c + d)) + ((e + f) + (g + h))
    for i in range(done, n):
        total += table[i, column]
    return div(total, np.float32(n))
