# ruff: noqa: PLR0917 - Numba's kernels and device functions have no keywords
# mypy: disable-error-code="no-untyped-def, no-untyped-call"
"""Frames on the device into the network's input: resized, centred on black, RGB, normalised, in one pass.

Work, 640x480 to 512x704 FP16: 0.9 MB read, 2.2 MB written, 360 k pixels at some 60 operations: 1 us at 3.35 TB/s, so
launch and latency are the bound. A warp writes 32 neighbours of a row in each of three planes (64 bytes a store in
FP16), and reads its taps from two runs of about 96 / scale bytes, which L1 keeps from one tap and channel to the next.
The mirrored twin is written from the same registers, a run of the same length backwards. The number of people
does not change the work.
"""

from __future__ import annotations

from math import isfinite
from typing import TypeAlias

import numpy as np

from kernels.cuda._cuda import (
    DeviceArray,
    Stream,
    add32,
    as_device_array,
    as_stream,
    cuda,
    device,
    floor,
    kernel,
    larger,
    mad,
    mul,
    mul32,
    smaller,
    sub32,
    u32,
)
from kernels.cuda.maps import ZERO, inside

THREADS = (32, 8)  # one warp a row of the output; not yet measured against others
ONE = np.float32(1)
WarpArguments: TypeAlias = tuple[tuple[np.float32, ...], tuple[np.float32, ...], tuple[np.float32, ...]]


@device
def is_inside(index, size):
    return index >= 0 and index < size


@device
def neighbours(at, size):
    """The two pixels around position `at` of a row or column of `size` pixels, and their weights.

    A pixel outside weighs nothing; its index is that of the border.
    """
    # Two pixels outside is black, as any position further outside; it keeps the conversion to integers in range.
    at = smaller(larger(at, np.float32(-2)), np.float32(size) + ONE)
    whole = floor(at)
    first = np.int32(whole)
    second = add32(first, 1)
    second_weight = at - whole
    first_weight = ONE - second_weight
    first_weight = first_weight if is_inside(first, size) else ZERO
    second_weight = second_weight if is_inside(second, size) else ZERO
    return inside(first, size), inside(second, size), first_weight, second_weight


@device
def taps(frames, at, left_weight, right_weight, left, right):
    """The three channels between two pixels of the row that starts at `at`."""
    a, b = np.uint64(u32(mad(left, 3, at))), np.uint64(u32(mad(right, 3, at)))
    one, two = np.uint64(1), np.uint64(2)
    return (
        left_weight * np.float32(frames[a]) + right_weight * np.float32(frames[b]),
        left_weight * np.float32(frames[a + one]) + right_weight * np.float32(frames[b + one]),
        left_weight * np.float32(frames[a + two]) + right_weight * np.float32(frames[b + two]),
    )


@kernel
def warp_frames(frames, out, sizes, geometry, gain, offset, mirror):
    """One thread = one output pixel of one frame, three channels and its mirrored twin; writes all of out.

    frames, flat (F, h, w, 3); out, flat (F or 2F, 3, H, W); sizes (h, w, H, W); geometry (1 / scale, center x,
    center y); gain, offset in RGB order.
    """
    x = mad(cuda.blockIdx.x, cuda.blockDim.x, cuda.threadIdx.x)
    y = mad(cuda.blockIdx.y, cuda.blockDim.y, cuda.threadIdx.y)
    f = np.int32(cuda.blockIdx.z)
    h, w, H, W = sizes
    if y >= H or x >= W:
        return
    at_x = mul(np.float32(x) - np.float32(0.5) * np.float32(W), geometry[0]) + geometry[1]
    at_y = mul(np.float32(y) - np.float32(0.5) * np.float32(H), geometry[0]) + geometry[2]
    x0, x1, left_weight, right_weight = neighbours(at_x, w)
    y0, y1, upper_weight, lower_weight = neighbours(at_y, h)
    width, first = mul32(w, 3), mul32(f, h)
    upper = taps(frames, mul32(add32(first, y0), width), left_weight, right_weight, x0, x1)
    lower = taps(frames, mul32(add32(first, y1), width), left_weight, right_weight, x0, x1)
    plane = mul32(H, W)
    image = mad(mul32(f, 2 if mirror else 1), mul32(plane, 3), mul32(y, W))
    for c in range(3):
        b = 2 - c  # frames are BGR
        value = (upper_weight * upper[b] + lower_weight * lower[b]) * gain[c] + offset[c]
        out[u32(mad(plane, c, add32(image, x)))] = value
        if mirror:
            out[u32(mad(plane, c + 3, sub32(add32(image, W - 1), x)))] = value


def preprocess(
    frames: DeviceArray,
    out: DeviceArray,
    *,
    scale: float,
    center: tuple[float, float],
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    mirror: bool = False,
    stream: Stream = 0,
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
    geometry, gain, offset = warp_arguments(
        len(frames), out, scale=scale, center=center, mean=mean, std=std, mirror=mirror
    )
    grid = (-(-out.shape[3] // THREADS[0]), -(-out.shape[2] // THREADS[1]), len(frames))
    sizes = tuple(np.int32(side) for side in (*frames.shape[1:3], *out.shape[2:]))
    warp_frames[grid, THREADS, as_stream(stream)](
        frames.reshape(frames.size), out.reshape(out.size), sizes, geometry, gain, offset, mirror
    )


def warp_arguments(
    frames: int,
    out: DeviceArray,
    *,
    scale: float,
    center: tuple[float, float],
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    mirror: bool,
) -> WarpArguments:
    """(1 / scale, center x, center y), and gain and offset of each channel, for this many frames into out.

    Raises ValueError if out, scale or center is not as `preprocess` says.
    """
    images = frames * (2 if mirror else 1)
    if out.ndim != 4 or out.shape[:2] != (images, 3):
        raise ValueError(f"out is {out.shape}; expected ({images}, 3, H, W)")
    if not (isfinite(scale) and scale > 0 and isfinite(center[0]) and isfinite(center[1])):
        raise ValueError(f"scale is {scale} and center {center}; expected a positive and two finite numbers")
    return (
        (np.float32(1 / scale), np.float32(center[0]), np.float32(center[1])),
        tuple(np.float32(1 / (255 * s)) for s in std),
        tuple(np.float32(-m / s) for m, s in zip(mean, std, strict=True)),
    )
