"""How large a person is in the picture: the unit in which tolerances and speeds are counted."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def body_sizes(boxes: NDArray[np.floating]) -> NDArray[np.float64]:
    """(P,) pixels, at least 1, of boxes (P, 4): the root of the area, and of a thin box half its longer side."""
    wide, tall = boxes[:, 2].astype(np.float64), boxes[:, 3].astype(np.float64)
    return np.asarray(np.maximum(np.maximum(np.sqrt(wide * tall), 0.5 * np.maximum(wide, tall)), 1.0))
