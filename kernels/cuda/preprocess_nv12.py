# ruff: noqa: PLR0917 - Numba's kernels and device functions have no keywords
# mypy: disable-error-code="no-untyped-def, no-untyped-call"
"""NV12 frames, as a video decoder leaves them on the device, into the network's input: `preprocess` without BGR.

Each of a pixel's four taps is converted to RGB and clipped to 0..255 before they are blended, as if the frame had
been converted first: from there on the result is that of `preprocess`, but for the rounding of the converted picture.

Work, 1920x1080 to 512x960 FP16: half of the 6.2 MB that BGR has is read, 2.9 MB written; 490 k pixels at some 120
operations. Launch and latency are the bound, as in `preprocess`. A tap reads one byte of Y and two of U and V, which
four pixels share: L1 keeps them from one tap to the next.
"""

from __future__ import annotations

import numpy as np

from kernels.colour import Colour
from kernels.cuda._cuda import (
    DeviceArray,
    Stream,
    add32,
    as_device_array,
    as_stream,
    cuda,
    device,
    kernel,
    larger,
    mad,
    mul,
    mul32,
    smaller,
    sub32,
    u32,
)
from kernels.cuda.maps import ZERO
from kernels.cuda.preprocess import THREADS, neighbours, warp_arguments
from kernels.rules import MIDDLE, WHITE


@device
def cut(level):
    return larger(smaller(level, WHITE), ZERO)


@device
def rgb_at(frames, luma_row, chroma_row, x, colour):
    """One pixel, each channel in 0..255. luma_row, chroma_row: where its rows of Y and of U and V start."""
    pair = np.uint64(u32(mad(x >> 1, 2, chroma_row)))
    grey = mul(colour[1], np.float32(frames[u32(add32(x, luma_row))]) - colour[0])
    u = np.float32(frames[pair]) - MIDDLE
    v = np.float32(frames[pair + np.uint64(1)]) - MIDDLE
    green = grey + mul(colour[3], u) + mul(colour[4], v)
    return cut(grey + mul(colour[2], v)), cut(green), cut(grey + mul(colour[5], u))


@device
def between(low, high, low_weight, high_weight):
    """Two pixels blended, channel by channel."""
    return (
        mul(low_weight, low[0]) + mul(high_weight, high[0]),
        mul(low_weight, low[1]) + mul(high_weight, high[1]),
        mul(low_weight, low[2]) + mul(high_weight, high[2]),
    )


@kernel
def warp_nv12(frames, out, sizes, geometry, colour, normal, mirror):
    """One thread = one output pixel of one frame, three channels and its mirrored twin; writes all of out.

    frames, flat (F, h + ceil(h / 2), pitch); out, flat (F or 2F, 3, H, W); sizes (h, w, pitch, H, W); geometry
    (1 / scale, center x, center y); colour: `Colour.terms`; normal: gain, then offset, in RGB order.
    """
    x = mad(cuda.blockIdx.x, cuda.blockDim.x, cuda.threadIdx.x)
    y = mad(cuda.blockIdx.y, cuda.blockDim.y, cuda.threadIdx.y)
    f = np.int32(cuda.blockIdx.z)
    h, w, pitch, H, W = sizes
    if y >= H or x >= W:
        return
    at_x = mul(np.float32(x) - np.float32(0.5) * np.float32(W), geometry[0]) + geometry[1]
    at_y = mul(np.float32(y) - np.float32(0.5) * np.float32(H), geometry[0]) + geometry[2]
    x0, x1, left_weight, right_weight = neighbours(at_x, w)
    y0, y1, upper_weight, lower_weight = neighbours(at_y, h)
    first = mul32(f, add32(h, add32(h, 1) >> 1))  # row of the frame's first Y
    chroma = add32(first, h)
    luma_row, chroma_row = mul32(add32(first, y0), pitch), mul32(add32(chroma, y0 >> 1), pitch)
    left, right = rgb_at(frames, luma_row, chroma_row, x0, colour), rgb_at(frames, luma_row, chroma_row, x1, colour)
    upper = between(left, right, left_weight, right_weight)
    luma_row, chroma_row = mul32(add32(first, y1), pitch), mul32(add32(chroma, y1 >> 1), pitch)
    left, right = rgb_at(frames, luma_row, chroma_row, x0, colour), rgb_at(frames, luma_row, chroma_row, x1, colour)
    rgb = between(upper, between(left, right, left_weight, right_weight), upper_weight, lower_weight)
    plane = mul32(H, W)
    image = mad(mul32(f, 2 if mirror else 1), mul32(plane, 3), mul32(y, W))
    for c in range(3):
        value = mul(rgb[c], normal[c]) + normal[c + 3]
        out[u32(mad(plane, c, add32(image, x)))] = value
        if mirror:
            out[u32(mad(plane, c + 3, sub32(add32(image, W - 1), x)))] = value


def preprocess_nv12(
    frames: DeviceArray,
    out: DeviceArray,
    *,
    frame_wh: tuple[int, int],
    colour: Colour,
    scale: float,
    center: tuple[float, float],
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    mirror: bool = False,
    stream: Stream = 0,
) -> None:
    """Writes all of `out`, on `stream`, without waiting, with the bits of `kernels.cpu.preprocess_nv12`.

    frames: (F, h + ceil(h / 2), pitch) uint8 in device memory, or (h + ceil(h / 2), pitch): h rows of Y, then rows of U
    and V in turn, each for 2x2 pixels; pitch is at least the width, rounded up to even. frame_wh: the width and h.
    colour: of all frames. The rest as `preprocess`; a CUDA graph fixes all but the pixels.
    Raises ValueError or TypeError if an argument is not such.
    """
    frames, out = as_device_array(frames, "frames"), as_device_array(out, "out")
    if frames.dtype != np.uint8 or out.dtype not in (np.float16, np.float32):
        raise TypeError(f"frames are {frames.dtype} and out {out.dtype}; expected uint8, and float16 or float32")
    if frames.ndim == 2:
        frames = frames.reshape(1, *frames.shape)
    w, h = frame_wh
    rows, pitch = h + (h + 1) // 2, w + w % 2
    if min(frame_wh) < 1 or frames.ndim != 3 or not len(frames) or frames.shape[1] != rows or frames.shape[2] < pitch:
        raise ValueError(f"frames are {frames.shape} for {w}x{h} pixels; expected (F, {rows}, {pitch} or more), NV12")
    geometry, gain, offset = warp_arguments(
        len(frames), out, scale=scale, center=center, mean=mean, std=std, mirror=mirror
    )
    grid = (-(-out.shape[3] // THREADS[0]), -(-out.shape[2] // THREADS[1]), len(frames))
    sizes = tuple(np.int32(side) for side in (h, w, frames.shape[2], *out.shape[2:]))
    warp_nv12[grid, THREADS, as_stream(stream)](
        frames.reshape(frames.size),
        out.reshape(out.size),
        sizes,
        geometry,
        colour.terms(),
        (*gain, *offset),
        mirror,
    )
