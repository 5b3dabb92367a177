"""The float32 arithmetic of tags: distances and means, in the order of the authors' NumPy."""

from __future__ import annotations

import numpy as np

from kernels.cpu._jit import inner
from kernels.cpu.maps import Floats
from kernels.rules import FAR_AWAY


@inner
def tag_distance(a: Floats, b: Floats) -> np.float32:
    """Euclidean over T = 1 or 2 values, float32, at most 255, and 255 if it is NaN."""
    dx = a[0] - b[0]
    square = dx * dx
    if len(a) == 2:
        dy = a[1] - b[1]
        square += dy * dy
    distance = np.sqrt(square)
    return distance if distance < FAR_AWAY else FAR_AWAY


@inner
def tag_mean(tags: Floats, n: int, out: Floats) -> None:
    """out (T,) = the float32 mean of tags[:n] (n, T), added in the order of the authors' NumPy.

    T = 2, or n < 8: one after another. Else eight running sums, combined as ((0+1)+(2+3))+((4+5)+(6+7)), then the rest.
    """
    T = tags.shape[1]
    for t in range(T):
        total = np.float32(0)
        start = 0
        if T == 1 and n >= 8:
            lanes = tags[:8, 0].copy()
            start = n - n % 8
            for i in range(8, start):
                lanes[i % 8] += tags[i, 0]
            total = ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) + ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]))
        for i in range(start, n):
            total += tags[i, t]
        out[t] = total / np.float32(n)
