"""Synthetic people for tests: upright bodies of known sizes at known positions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.types import People

# x, y in heights from the top of the head, facing the camera; COCO's order. The torso is 0.30 heights long.
_UPRIGHT = (
    (0.00, 0.08), (0.02, 0.06), (-0.02, 0.06), (0.04, 0.07), (-0.04, 0.07), (0.11, 0.20), (-0.11, 0.20), (0.13, 0.36),
    (-0.13, 0.36), (0.14, 0.50), (-0.14, 0.50), (0.11, 0.50), (-0.11, 0.50), (0.09, 0.75), (-0.09, 0.75), (0.09, 0.97),
    (-0.09, 0.97),
)  # fmt: skip


def standing(x: float, top: float, *, height: float = 200.0, score: float = 0.8) -> NDArray[np.float64]:
    """(17, 3) x, y, score of an upright person with the top of the head at (x, top)."""
    joints = np.array(_UPRIGHT) * height + (x, top)
    return np.concatenate([joints, np.full((17, 1), score)], axis=1)


def crowd(*joints: NDArray[np.float64], ids: Sequence[int] | None = None) -> People:
    """People from arrays (17, 3) x, y, score; a person's score is the mean."""
    if not joints:
        return People.nobody()
    stack = np.stack(joints).astype(np.float32)
    given = None if ids is None else np.array(ids, np.int64)
    return People(stack[..., :2].copy(), stack[..., 2].copy(), stack[..., 2].mean(axis=1), given)  # type: ignore[arg-type]
