"""Object keypoint similarity, as COCO's keypoint evaluation defines it. The decode's own filter is in kernels/."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from core.joints import sigmas_for

Floats = NDArray[np.float64]


def joint_similarities(found: ArrayLike, true: ArrayLike, areas: ArrayLike) -> Floats:
    """Similarity of each joint, 0..1: exp(-d^2 / (2 s^2 (2 sigma)^2)), d the distance, s^2 the true person's area.

    found, true: (..., K, 2) x, y; areas: (...) square pixels, at least 1 each; all broadcast. Returns (..., K).
    Source: https://cocodataset.org/#keypoints-eval.
    """
    squared = ((np.asarray(found, np.float64) - np.asarray(true, np.float64)) ** 2).sum(axis=-1)  # (..., K)
    spread = 2 * (2 * np.array(sigmas_for(squared.shape[-1]))) ** 2  # (K,)
    return np.asarray(np.exp(-squared / (spread * np.maximum(areas, 1.0)[..., None])))
