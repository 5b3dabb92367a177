# ruff: noqa: PLR0917 - compiled functions have no keyword-only arguments
"""A frame into the network's input: resized, centred on black, RGB, normalised, in one pass."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kernels.cpu._jit import entry, inner
from kernels.cpu.maps import Floats, Ints, U


def preprocess(
    image: NDArray[np.uint8],
    out: Floats,
    *,
    scale: float,
    center: tuple[float, float],
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
) -> None:
    """Writes all of out.

    image: (H, W, 3) uint8 BGR. out: (3, h, w) float32, C-contiguous: RGB, `(pixel / 255 - mean) / std`.
    scale: output pixels per image pixel. center: (x, y) in image pixels, shown at (w / 2, h / 2); both count from the
    centre of the first pixel, so output pixel (x, y) shows image point ((x, y) - (w / 2, h / 2)) / scale + center.
    Bilinear over four pixels, without averaging when it shrinks; black outside, also as a neighbour at the border:
    cv2.warpAffine with its defaults, but not rounded to whole grey levels.
    Raises ValueError or TypeError if an argument is not such. Several threads may call.
    """
    if image.dtype != np.uint8 or out.dtype != np.float32:
        raise TypeError(f"image is {image.dtype} and out {out.dtype}; expected uint8 and float32")
    if image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ValueError(f"image is {image.shape}; expected (H, W, 3), BGR")
    check_output(out, scale, center)
    # uint8 to normalised, as one multiply-add a channel, in the order of image's channels (BGR)
    gain = np.array([1 / (255 * s) for s in reversed(std)], np.float32)
    offset = np.array([-m / s for m, s in zip(reversed(mean), reversed(std), strict=True)], np.float32)
    _warp(
        np.ascontiguousarray(image).reshape(len(image), -1),
        out,
        float(scale),
        float(center[0]),
        float(center[1]),
        gain,
        offset,
    )


def check_output(out: Floats, scale: float, center: tuple[float, float]) -> None:
    """Raises ValueError if out, scale or center is not as `preprocess` says."""
    if out.ndim != 3 or len(out) != 3 or not out.flags.c_contiguous or not out.flags.writeable:
        raise ValueError(f"out is {out.shape}; expected (3, h, w), C-contiguous and writable")
    if not (np.isfinite(scale) and scale > 0 and np.isfinite(center[0]) and np.isfinite(center[1])):
        raise ValueError(f"scale is {scale} and center {center}; expected a positive and two finite numbers")


@entry
def _warp(
    image: NDArray[np.uint8], out: Floats, scale: float, cx: float, cy: float, gain: Floats, offset: Floats
) -> None:
    """image (H, 3 W): rows of interleaved pixels."""
    _, h, w = out.shape
    H, W = image.shape[0], image.shape[1] // 3
    # Each output column: the byte offsets of its two pixels and their weights; a pixel outside has the weight 0.
    left, right = np.empty(w, np.int64), np.empty(w, np.int64)
    left_weight, right_weight = np.empty(w, np.float32), np.empty(w, np.float32)
    for x in range(w):
        source = (x - w / 2) / scale + cx
        first = np.floor(source)
        part = source - first
        left[x] = 3 * int(min(max(first, 0), W - 1))
        right[x] = 3 * int(min(max(first + 1, 0), W - 1))
        left_weight[x] = 1 - part if 0 <= first < W else 0
        right_weight[x] = part if 0 <= first + 1 < W else 0
    # The two source rows of an output row, stretched to its columns. Most serve the next output row too.
    rows, lines = np.full(2, -1, np.int64), np.empty((2, 3, w), np.float32)
    for y in range(h):
        source = (y - h / 2) / scale + cy
        first = np.floor(source)
        part = source - first
        top = np.float32(1 - part if 0 <= first < H else 0)
        bottom = np.float32(part if 0 <= first + 1 < H else 0)
        above, below = int(min(max(first, 0), H - 1)), int(min(max(first + 1, 0), H - 1))
        if rows[above & 1] != above:
            rows[above & 1] = above
            _stretch(image[above], left, right, left_weight, right_weight, lines[above & 1])
        if rows[below & 1] != below:
            rows[below & 1] = below
            _stretch(image[below], left, right, left_weight, right_weight, lines[below & 1])
        for c in range(3):
            upper, lower, line, g, o = lines[above & 1, c], lines[below & 1, c], out[2 - c, y], gain[c], offset[c]
            for x in range(w):
                line[x] = (top * upper[x] + bottom * lower[x]) * g + o


@inner
def _stretch(
    row: NDArray[np.uint8], left: Ints, right: Ints, left_weight: Floats, right_weight: Floats, lines: Floats
) -> None:
    """lines (3, w), a channel each = the row's pixels at the output's columns."""
    for x in range(len(left)):
        i, j, a, b = U(left[x]), U(right[x]), left_weight[x], right_weight[x]
        lines[0, x] = a * np.float32(row[i]) + b * np.float32(row[j])
        lines[1, x] = a * np.float32(row[i + U(1)]) + b * np.float32(row[j + U(1)])
        lines[2, x] = a * np.float32(row[i + U(2)]) + b * np.float32(row[j + U(2)])
