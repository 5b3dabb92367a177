"""Network outputs of drawn crowds, small or large: what the simulator and the GPU tests decode."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kernels.options import DecodeOptions

Floats = NDArray[np.float32]


def draw_crowd(
    rng: np.random.Generator,
    people: int,
    hw: tuple[int, int],
    *,
    K: int = 17,
    T: int = 1,
    D: int = 1,
    found: float = 0.75,
) -> tuple[Floats, Floats]:
    """heatmaps (T, K, h, w) and tags (T, D * K, h/2, w/2): joints anywhere, tags 1 to 2 apart, noise everywhere.

    A joint is seen with probability `found`, and in T = 2 at about the same place in the mirrored frame.
    """
    h, w = hw
    flip = np.array(DecodeOptions().flip_for(K) if K in (14, 17) else range(K)[::-1])
    heat = rng.normal(0, 0.01, (T, K, h, w))
    tags = rng.normal(0, 0.4, (T, K, h // 2, w // 2))
    persons = rng.permutation(np.cumsum(rng.uniform(1, 2, people)))
    for p in range(people):
        for k in np.flatnonzero(rng.random(K) < found):
            x, y = rng.uniform(0, w), rng.uniform(0, h)
            for t in range(T):
                at_x, plane = (w - 1 - x, flip[k]) if t else (x, k)
                tag, peak = persons[p] + rng.normal(0, 0.1), rng.uniform(0.15, 0.95)
                _stamp(heat[t, plane], tags[t, plane], (at_x, y), peak=peak, tag=tag)
    if D == 2:  # the second numbers tell people apart in another order
        tags = np.concatenate([tags, 3 - 0.6 * tags + rng.normal(0, 0.05, tags.shape)], axis=1)
    return heat.astype(np.float32), tags.astype(np.float32)


def _stamp(
    heat: NDArray[np.float64], tags: NDArray[np.float64], xy: tuple[float, float], *, peak: float, tag: float
) -> None:
    (x, y), (h, w) = xy, heat.shape
    left, right = max(int(x) - 6, 0), min(int(x) + 8, w)
    top, bottom = max(int(y) - 6, 0), min(int(y) + 8, h)
    ys, xs = np.mgrid[top:bottom, left:right]
    blob = peak * np.exp(-((xs - x) ** 2 + (ys - y) ** 2) / 8)
    heat[top:bottom, left:right] = np.maximum(heat[top:bottom, left:right], blob)
    tags[top // 2 : bottom // 2 + 1, left // 2 : right // 2 + 1] = tag
