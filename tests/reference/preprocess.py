"""The letterbox in plain NumPy: every output pixel looked up by its formula."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def preprocess(
    image: NDArray[np.uint8] | NDArray[np.float64],
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


def nv12_to_bgr(
    frame: NDArray[np.uint8], frame_wh: tuple[int, int], red: float, blue: float, *, full_range: bool
) -> NDArray[np.float64]:
    """(h, w, 3), 0..255, not rounded; each 2x2 pixels share one U and V. red, blue: their shares in luma."""
    w, h = frame_wh
    y = frame[:h, :w].astype(np.float64)
    uv = frame[h:, : w + w % 2].reshape(-1, (w + 1) // 2, 2).astype(np.float64)
    u, v = uv.repeat(2, axis=0).repeat(2, axis=1)[:h, :w].transpose(2, 0, 1)
    if full_range:
        y, pb, pr = y / 255, (u - 128) / 255, (v - 128) / 255
    else:
        y, pb, pr = (y - 16) / 219, (u - 128) / 224, (v - 128) / 224
    r = y + 2 * (1 - red) * pr
    b = y + 2 * (1 - blue) * pb
    g = (y - red * r - blue * b) / (1 - red - blue)  # luma is the weighted sum of the three
    bgr: NDArray[np.float64] = 255 * np.stack([b, g, r], axis=-1).clip(0, 1)
    return bgr
