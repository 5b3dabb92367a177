# ruff: noqa: PLR0917 - compiled functions have no keyword-only arguments
"""A frame as a video decoder leaves it, NV12, into the network's input: as `preprocess`, without BGR in between."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kernels.colour import Colour
from kernels.cpu._jit import entry, inner
from kernels.cpu.maps import Floats
from kernels.cpu.preprocess import check_output
from kernels.rules import MIDDLE, WHITE

Columns = NDArray[np.int32]


def preprocess_nv12(
    frame: NDArray[np.uint8],
    out: Floats,
    *,
    frame_wh: tuple[int, int],
    colour: Colour,
    scale: float,
    center: tuple[float, float],
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
) -> None:
    """Writes all of out, with the bits of `kernels.cuda.preprocess_nv12`.

    frame: (H + ceil(H / 2), pitch) uint8, C-contiguous: H rows of Y, then rows of U and V in turn, each for 2x2 pixels;
    pitch is at least the width, rounded up to even. frame_wh: its width and height H.
    out: (3, h, w) float32, C-contiguous: RGB, `(pixel / 255 - mean) / std`. colour: of the frame.
    scale, center: as `preprocess`. Each of four pixels becomes RGB, in the range 0..255, before they are blended.
    Raises ValueError or TypeError if an argument is not such. Several threads may call.
    """
    width, height = frame_wh
    if frame.dtype != np.uint8 or out.dtype != np.float32:
        raise TypeError(f"frame is {frame.dtype} and out {out.dtype}; expected uint8 and float32")
    check_nv12(frame.shape, frame_wh)
    check_output(out, scale, center)
    inverse = np.float32(1 / scale)
    gain = np.array([1 / (255 * s) for s in std], np.float32)
    offset = np.array([-m / s for m, s in zip(mean, std, strict=True)], np.float32)
    columns = _neighbours(out.shape[2], width, inverse, np.float32(center[0]))
    rows = _neighbours(out.shape[1], height, inverse, np.float32(center[1]))
    _warp(np.ascontiguousarray(frame), height, out, columns, rows, np.array(colour.terms()), gain, offset)


def check_nv12(shape: tuple[int, ...], frame_wh: tuple[int, int]) -> None:
    """Raises ValueError if an array of this shape cannot hold a frame of this width and height."""
    w, h = frame_wh
    if min(frame_wh) < 1 or len(shape) != 2 or shape[0] != h + (h + 1) // 2 or shape[1] < w + w % 2:
        raise ValueError(
            f"frame is {shape} for {w}x{h} pixels; expected ({h + (h + 1) // 2}, {w + w % 2} or more), NV12"
        )


def _neighbours(count: int, size: int, inverse: np.float32, center: np.float32) -> tuple[Columns, Columns, Floats]:
    """For each of `count` outputs the two pixels around it, (count,) each, and their weights (count, 2); float32."""
    at = (np.arange(count, dtype=np.float32) - np.float32(0.5) * np.float32(count)) * inverse + center
    at = np.clip(at, np.float32(-2), np.float32(size) + np.float32(1))
    first = np.floor(at)
    part = at - first
    weights = np.stack([np.float32(1) - part, part], axis=1)
    pixels = first.astype(np.int32)
    for side in (0, 1):  # a pixel outside weighs nothing
        weights[(pixels + side < 0) | (pixels + side >= size), side] = 0
    return pixels.clip(0, size - 1), (pixels + 1).clip(0, size - 1), weights


@inner
def _between(low: np.float32, high: np.float32, weights: Floats) -> np.float32:
    return np.float32(weights[0] * low + weights[1] * high)


@inner
def _rgb(
    frame: NDArray[np.uint8], height: int, y: int, x: int, terms: Floats
) -> tuple[np.float32, np.float32, np.float32]:
    """One pixel, each channel in 0..255."""
    black, luma, v_to_red, u_to_green, v_to_green, u_to_blue = terms
    chroma, column = height + y // 2, x // 2 * 2
    grey = luma * (np.float32(frame[y, x]) - black)
    u, v = np.float32(frame[chroma, column]) - MIDDLE, np.float32(frame[chroma, column + 1]) - MIDDLE
    red, green, blue = grey + v_to_red * v, grey + u_to_green * u + v_to_green * v, grey + u_to_blue * u
    nothing = np.float32(0)
    return (
        max(min(red, WHITE), nothing),
        max(min(green, WHITE), nothing),
        max(min(blue, WHITE), nothing),
    )


@entry
def _warp(
    frame: NDArray[np.uint8],
    height: int,
    out: Floats,
    columns: tuple[Columns, Columns, Floats],
    rows: tuple[Columns, Columns, Floats],
    terms: Floats,
    gain: Floats,
    offset: Floats,
) -> None:
    terms_of = (terms[0], terms[1], terms[2], terms[3], terms[4], terms[5])
    for y in range(out.shape[1]):
        top, bottom, vertical = rows[0][y], rows[1][y], rows[2][y]
        for x in range(out.shape[2]):
            left, right, horizontal = columns[0][x], columns[1][x], columns[2][x]
            a, b = _rgb(frame, height, top, left, terms_of), _rgb(frame, height, top, right, terms_of)
            c, d = _rgb(frame, height, bottom, left, terms_of), _rgb(frame, height, bottom, right, terms_of)
            for channel in range(3):
                upper = _between(a[channel], b[channel], horizontal)
                lower = _between(c[channel], d[channel], horizontal)
                out[channel, y, x] = _between(upper, lower, vertical) * gain[channel] + offset[channel]
