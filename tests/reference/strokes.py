"""Antialiased strokes in plain NumPy: each stroke covers the whole picture by the distance from its line."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def paint(
    image: NDArray[np.uint8],
    points: NDArray[np.float64],
    ends: NDArray[np.int64],
    radii: NDArray[np.float64],
    colours: NDArray[np.uint8],
) -> NDArray[np.float64]:
    """The picture (H, W, 3) after `kernels.cpu.strokes.paint`, not rounded."""
    x, y = np.meshgrid(np.arange(image.shape[1]), np.arange(image.shape[0]))
    pixels = np.stack([x, y], axis=-1).astype(np.float64)  # (H, W, 2)
    painted = image.astype(np.float64)
    for (a, b), radius, colour in zip(points[ends], radii, colours, strict=True):
        if np.isfinite([*a, *b, radius]).all():
            square = ((b - a) ** 2).sum()
            part = np.clip((pixels - a) @ (b - a) / square, 0, 1) if square > 0 else np.zeros(x.shape)
            distance = np.linalg.norm(pixels - a - part[..., None] * (b - a), axis=-1)
            coverage = np.clip(radius + 0.5 - distance, 0, 1)[..., None]  # (H, W, 1)
            painted += coverage * (colour - painted)
    return painted
