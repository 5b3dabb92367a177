# ruff: noqa: PLR0917 - a kernel is one function over many arrays, without keywords; Numba types it
# mypy: disable-error-code="no-untyped-def, no-untyped-call"
"""Frames on the device into the network's input: resized, centred on black, RGB, normalised, in one pass.

Work, 640x480 to 512x704 FP16: 0.9 MB read, 2.2 MB written, 360 k pixels at some 60 operations: 1 us at 3.35 TB/s, so
launch and latency are the bound. A warp writes 32 neighbours of a row in each of three planes (64 bytes a store in
FP16), and reads its taps from two runs of about 96 / scale bytes, which L1 keeps from one tap and channel to the next.
The mirrored twin is written from the same registers, a run of the same length backwards. The people in the picture
play no part.
"""

from __future__ import annotations

from math import isfinite
from typing import Any

import numpy as np

from kernels.cuda._cuda import as_device_array, as_stream, cuda, floor, mul
from kernels.cuda.maps import ZERO

THREADS = (32, 8)  # one warp a row of the output; not yet measured against others
ONE = np.float32(1)


@cuda.jit
def warp_frames(frames, out, geometry, gain, offset, mirror):
    """One thread = one output pixel of one frame, three channels and its mirrored twin; writes all of out.

    frames (F, h, w, 3); out (F or 2F, 3, H, W); geometry (1 / scale, center x, center y); gain, offset in RGB order.
    """
    x, y, f = cuda.grid(3)
    H, W = out.shape[2], out.shape[3]
    if y >= H or x >= W:
        return
    h, w = frames.shape[1], frames.shape[2]
    at_x = mul(np.float32(x) - np.float32(0.5) * np.float32(W), geometry[0]) + geometry[1]
    at_y = mul(np.float32(y) - np.float32(0.5) * np.float32(H), geometry[0]) + geometry[2]
    # Outside by two pixels is as black as further outside, and keeps the conversion to integers in range.
    at_x = min(max(at_x, np.float32(-2)), np.float32(w) + ONE)
    at_y = min(max(at_y, np.float32(-2)), np.float32(h) + ONE)
    left, top = floor(at_x), floor(at_y)
    x0, y0 = int(left), int(top)
    right_weight, lower_weight = at_x - left, at_y - top
    left_weight = ONE - right_weight if 0 <= x0 < w else ZERO  # a pixel outside weighs nothing
    right_weight = right_weight if 0 <= x0 + 1 < w else ZERO
    upper_weight = ONE - lower_weight if 0 <= y0 < h else ZERO
    lower_weight = lower_weight if 0 <= y0 + 1 < h else ZERO
    x1, y1 = min(max(x0 + 1, 0), w - 1), min(max(y0 + 1, 0), h - 1)
    x0, y0 = min(max(x0, 0), w - 1), min(max(y0, 0), h - 1)
    n = 2 * f if mirror else f
    for c in range(3):
        b = 2 - c  # frames are BGR
        upper = left_weight * np.float32(frames[f, y0, x0, b]) + right_weight * np.float32(frames[f, y0, x1, b])
        lower = left_weight * np.float32(frames[f, y1, x0, b]) + right_weight * np.float32(frames[f, y1, x1, b])
        value = (upper_weight * upper + lower_weight * lower) * gain[c] + offset[c]
        out[n, c, y, x] = value
        if mirror:
            out[n + 1, c, y, W - 1 - x] = value


def preprocess(
    frames: Any,
    out: Any,
    *,
    scale: float,
    center: tuple[float, float],
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    mirror: bool = False,
    stream: Any = 0,
) -> None:
    """Writes all of `out`, on `stream`, without waiting. All but the pixels is fixed when a CUDA graph captures it.

    frames: (h, w, 3) or (F, h, w, 3) uint8 BGR in device memory. out: (F, 3, H, W) float16 or float32 in device memory:
    RGB, `(pixel / 255 - mean) / std`; with mirror (2F, 3, H, W), each frame followed by its mirror image.
    scale: output pixels per frame pixel. center: (x, y) in frame pixels, shown at (W / 2, H / 2): output pixel (x, y)
    shows frame point ((x, y) - (W / 2, H / 2)) / scale + center. Bilinear, black outside. Positions are float32: to
    1e-3 of a pixel at 4096 pixels.
    Raises ValueError or TypeError if an argument is not such.
    """
    frames, out = as_device_array(frames, "frames"), as_device_array(out, "out")
    if frames.dtype != np.uint8 or out.dtype not in (np.float16, np.float32):
        raise TypeError(f"frames are {frames.dtype} and out {out.dtype}; expected uint8, and float16 or float32")
    if frames.ndim == 3:
        frames = frames.reshape(1, *frames.shape)
    if frames.ndim != 4 or frames.shape[3] != 3 or not frames.size:
        raise ValueError(f"frames are {frames.shape}; expected (h, w, 3) or (F, h, w, 3), BGR")
    images = len(frames) * (2 if mirror else 1)
    if out.ndim != 4 or out.shape[:2] != (images, 3):
        raise ValueError(f"out is {out.shape}; expected ({images}, 3, H, W)")
    if not (isfinite(scale) and scale > 0 and isfinite(center[0]) and isfinite(center[1])):
        raise ValueError(f"scale is {scale} and center {center}; expected a positive and two finite numbers")
    geometry = (np.float32(1 / scale), np.float32(center[0]), np.float32(center[1]))
    gain = tuple(np.float32(1 / (255 * s)) for s in std)
    offset = tuple(np.float32(-m / s) for m, s in zip(mean, std, strict=True))
    grid = (-(-out.shape[3] // THREADS[0]), -(-out.shape[2] // THREADS[1]), len(frames))
    warp_frames[grid, THREADS, as_stream(stream)](frames, out, geometry, gain, offset, mirror)
