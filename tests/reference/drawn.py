"""Small maps of every temper for tests: as a network gives them, and as it never should."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

KINDS = ("noise", "ties", "smooth", "people", "constant", "broken")


def draw_maps(
    kind: str, seed: int, *, T: int = 1, K: int = 3, hw: tuple[int, int] = (12, 20)
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """heatmaps (T, K, 2 h, 2 w) and tags (T, K, h, w), where hw = (h, w).

    noise: peaks everywhere; ties: few distinct values, so many are equal; smooth: a few wide hills; people: hills
    amid tags of a few persons; constant: one value and one tag; broken: noise with NaN, infinities and huge values.
    """
    rng = np.random.default_rng(seed)
    h, w = hw
    heat_shape, tag_shape = (T, K, 2 * h, 2 * w), (T, K, h, w)
    if kind == "ties":
        return _f32(rng.integers(-2, 4, heat_shape) / 4), _f32(rng.integers(-3, 4, tag_shape) / 2)
    if kind == "constant":
        return np.full(heat_shape, rng.choice([0.0, 0.3]), np.float32), np.full(tag_shape, rng.normal(), np.float32)
    if kind in ("smooth", "people"):
        return _hills(rng, heat_shape, tag_shape, tagged=kind == "people")
    heat, tags = rng.normal(0, 0.3, heat_shape), rng.normal(0, 2, tag_shape)
    if kind == "broken":
        for maps in (heat, tags):
            maps[rng.random(maps.shape) < 0.05] = np.nan
            for odd in (np.inf, -np.inf, 1e30, -1e30, 300.0):
                maps[rng.random(maps.shape) < 0.01] = odd
    return _f32(heat), _f32(tags)


def _hills(
    rng: np.random.Generator, heat_shape: tuple[int, ...], tag_shape: tuple[int, ...], *, tagged: bool
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    _, K, h, w = tag_shape
    heat, tags = rng.normal(0, 0.01, heat_shape), rng.normal(0, 0.4, tag_shape)
    ys, xs = np.mgrid[: 2 * h, : 2 * w]
    for person in range(int(rng.integers(1, 6))):
        for k in range(K):
            if rng.random() < 0.3:
                continue
            y, x = rng.uniform(0, 2 * h), rng.uniform(0, 2 * w)
            hill = rng.uniform(0.2, 1) * np.exp(-((ys - y) ** 2 + (xs - x) ** 2) / 18)
            near = ((ys - y) ** 2 + (xs - x) ** 2 < 25)[::2, ::2]
            for t in range(len(heat)):  # the mirrored half is only roughly the mirror of the plain one
                side = slice(None, None, -1 if t else 1)
                heat[t, k] = np.maximum(heat[t, k], hill[:, side])
                if tagged:
                    tags[t, k][near[:, side]] = 1.2 * person + rng.normal(0, 0.1)
    return _f32(heat), _f32(tags)


def _f32(maps: NDArray[np.float64]) -> NDArray[np.float32]:
    return maps.astype(np.float32)
