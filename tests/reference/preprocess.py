"""The letterbox in plain NumPy: every output pixel looked up by its formula."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def preprocess(
    image: NDArray[np.uint8],
    out_hw: tuple[int, int],
    *,
    scale: float,
    center: tuple[float, float],
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
) -> NDArray[np.float32]:
    """As `kernels.cpu.preprocess`, returning (3, h, w): bilinear, black outside, RGB, normalised."""
    h, w = out_hw
    xs = (np.arange(w) - w / 2) / scale + center[0]
    ys = (np.arange(h) - h / 2) / scale + center[1]
    x0, y0 = np.floor(xs).astype(int), np.floor(ys).astype(int)
    fx, fy = (xs - x0)[None, :, None], (ys - y0)[:, None, None]

    def pixels(rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.float64]:
        H, W = image.shape[:2]
        inside = ((rows >= 0) & (rows < H))[:, None] & ((columns >= 0) & (columns < W))[None]
        found = image[rows.clip(0, H - 1)][:, columns.clip(0, W - 1)].astype(np.float64)
        black: NDArray[np.float64] = found * inside[..., None]  # (h, w, 3), outside
        return black

    top = pixels(y0, x0) * (1 - fx) + pixels(y0, x0 + 1) * fx
    bottom = pixels(y0 + 1, x0) * (1 - fx) + pixels(y0 + 1, x0 + 1) * fx
    rgb = (top * (1 - fy) + bottom * fy)[..., ::-1]
    normalised: NDArray[np.float64] = (rgb / 255 - np.array(mean)) / np.array(std)
    return normalised.transpose(2, 0, 1).astype(np.float32)
