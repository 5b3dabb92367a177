"""A person's size in the picture, which is the unit of tolerances and speeds, and the median over valid joints."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def body_sizes(boxes: NDArray[np.floating]) -> NDArray[np.float64]:
    """(P,) pixels, at least 1: the square root of each box's area (P, 4), or half its longer side if that is more."""
    wide, tall = boxes[:, 2].astype(np.float64), boxes[:, 3].astype(np.float64)
    return np.asarray(np.maximum(np.maximum(np.sqrt(wide * tall), 0.5 * np.maximum(wide, tall)), 1.0))


def masked_medians(values: NDArray[np.float64], valid: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(M, 2): the median over the valid joints of each row of (M, K, 2); at least one must be valid."""
    ordered = np.sort(np.where(valid[..., None], values, np.inf), axis=1)
    count, row = valid.sum(axis=1), np.arange(len(values))
    return np.asarray(0.5 * (ordered[row, (count - 1) // 2] + ordered[row, count // 2]))
