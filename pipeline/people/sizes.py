"""A person's size in the picture, the unit of tolerances and speeds, and the median over the joints that are there."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def body_sizes(boxes: NDArray[np.floating]) -> NDArray[np.float64]:
    """(P,) pixels, at least 1, of boxes (P, 4): the root of the area, and of a thin box half its longer side."""
    wide, tall = boxes[:, 2].astype(np.float64), boxes[:, 3].astype(np.float64)
    return np.asarray(np.maximum(np.maximum(np.sqrt(wide * tall), 0.5 * np.maximum(wide, tall)), 1.0))


def masked_medians(values: NDArray[np.float64], valid: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(M, 2): the median over the valid joints of each row of (M, K, 2); at least one is valid."""
    ordered = np.sort(np.where(valid[..., None], values, np.inf), axis=1)
    count, row = valid.sum(axis=1), np.arange(len(values))
    return np.asarray(0.5 * (ordered[row, (count - 1) // 2] + ordered[row, count // 2]))
