# ruff: noqa: PLR0917 - compiled functions have no keyword-only arguments
"""Antialiased strokes with round ends, and discs, painted onto a picture one over the other."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.cpu._jit import entry, inner
from kernels.cpu.maps import Ints

Doubles = NDArray[np.float64]
Pixels = NDArray[np.uint8]
TINY = 1e-12  # replaces a smaller slope, so that its reciprocal is a number that can be multiplied
FAR = 1e7  # pixels; beyond, float64 would not tell the subpixels any more
TYPES: list[np.dtype[Any]] = [np.dtype(one) for one in ("uint8", "float64", "int64", "float64", "uint8")]
OPAQUE = 256  # coverage is an integer 0..256: the blend needs no division


def paint(image: Pixels, points: Doubles, ends: Ints, radii: Doubles, colours: Pixels) -> None:
    """Paints S strokes in order; what lies outside the picture is left out. Several threads may call.

    image: (H, W, 3) uint8, C-contiguous. points: (K, 2) float64, x and y in pixels, pixel centres at whole numbers.
    ends: (S, 2) int64, the two points that a stroke joins; the same point twice for a disc.
    radii: (S,) float64, half the widths, at least 0. colours: (S, 3) uint8.
    A stroke is not painted if one of its numbers is not finite or above 10 million.
    Raises ValueError or TypeError if an argument is not such. Another memory order of an array, or one that is
    read-only, is compiled anew.

    A pixel is covered by its distance from the line between the two points: wholly up to radius - 1/2, not at all from
    radius + 1/2, in between as a straight edge would cover it.
    """
    types = [array.dtype for array in (image, points, ends, radii, colours)]
    if types != TYPES:
        raise TypeError(
            f"image, points, ends, radii and colours are {', '.join(map(str, types))}; "
            f"expected {', '.join(map(str, TYPES))}"
        )
    S = len(ends)
    shapes = image.shape[2:], points.shape[1:], ends.shape, radii.shape, colours.shape
    if image.ndim != 3 or points.ndim != 2 or shapes != ((3,), (2,), (S, 2), (S,), (S, 3)):
        raise ValueError(
            f"image {image.shape}, points {points.shape}, ends {ends.shape}, radii {radii.shape} and colours "
            f"{colours.shape} disagree; expected (H, W, 3), (K, 2), (S, 2), (S,) and (S, 3)"
        )
    if not (image.flags.c_contiguous and image.flags.writeable):
        raise ValueError("image is not C-contiguous or is read-only; paint on a copy")
    if not _paint(image, points, ends, radii, colours):
        raise ValueError(f"ends are points {ends.min()} to {ends.max()}; expected 0 to {len(points) - 1}")


@inner
def _is_near(number: float) -> bool:
    return abs(number) <= FAR  # false for NaN


@inner
def _blend(image: Pixels, y: int, x: int, colour: tuple[int, int, int], coverage: int) -> None:
    rest = OPAQUE - coverage
    for channel in range(3):
        image[y, x, channel] = (image[y, x, channel] * rest + colour[channel] * coverage + OPAQUE // 2) >> 8


@inner
def _coverage(x: float, y: float, ux: float, uy: float, length: float, radius: float) -> int:
    """x, y: the pixel, seen from the stroke's first end; ux, uy: the unit vector to the other end."""
    along = ux * x + uy * y
    if along < 0:
        distance = np.sqrt(x * x + y * y)
    elif along > length:
        distance = np.sqrt((x - ux * length) ** 2 + (y - uy * length) ** 2)
    else:
        distance = abs(ux * y - uy * x)
    return int(min(max(radius + 0.5 - distance, 0.0), 1.0) * OPAQUE + 0.5)


@inner
def _span(y: float, ux: float, uy: float, length: float, reach: float) -> tuple[float, float]:
    """The first and last x, seen from the first end, that are closer than `reach`; first > last if none is."""
    # between the ends: |distance from the middle line| <= reach, and 0 <= along <= length
    over_x, over_y = 1 / (ux if abs(ux) > TINY else TINY), 1 / (uy if abs(uy) > TINY else TINY)
    one, other = (ux * y - reach) * over_y, (ux * y + reach) * over_y
    start, stop = -uy * y * over_x, (length - uy * y) * over_x
    first, last = max(min(one, other), min(start, stop)), min(max(one, other), max(start, stop))
    if first > last:
        first, last = np.inf, -np.inf
    # the round ends; the stroke is convex, so that its pixels in a row are neighbours
    square = reach * reach - y * y
    if square > 0:
        first, last = min(first, -np.sqrt(square)), max(last, np.sqrt(square))
    square = reach * reach - (y - uy * length) ** 2
    if square > 0:
        first, last = min(first, ux * length - np.sqrt(square)), max(last, ux * length + np.sqrt(square))
    return first, last


@inner
def _stroke(
    image: Pixels, ax: float, ay: float, bx: float, by: float, radius: float, colour: tuple[int, int, int]
) -> None:
    height, width = image.shape[0], image.shape[1]
    length = np.sqrt((bx - ax) ** 2 + (by - ay) ** 2)
    ux, uy = ((bx - ax) / length, (by - ay) / length) if length > 0 else (1.0, 0.0)
    reach = radius + 0.5
    top, bottom = max(np.ceil(min(ay, by) - reach), 0.0), min(np.floor(max(ay, by) + reach), height - 1.0)
    for row in range(int(top), int(bottom) + 1):
        y = row - ay
        first, last = _span(y, ux, uy, length, reach)
        left, right = max(np.ceil(first + ax), 0.0), min(np.floor(last + ax), width - 1.0)
        if not left <= right:
            continue
        x, end = int(left), int(right)
        # the edges, from both sides inwards; between two opaque pixels all are
        while x <= end:
            coverage = _coverage(x - ax, y, ux, uy, length, radius)
            if coverage == OPAQUE:
                break
            _blend(image, row, x, colour, coverage)
            x += 1
        while end > x:
            coverage = _coverage(end - ax, y, ux, uy, length, radius)
            if coverage == OPAQUE:
                break
            _blend(image, row, end, colour, coverage)
            end -= 1
        for inside in range(np.uintp(x), np.uintp(end + 1)):  # unsigned: no check for an index below 0
            image[row, inside, 0] = colour[0]
            image[row, inside, 1] = colour[1]
            image[row, inside, 2] = colour[2]


@entry
def _paint(image: Pixels, points: Doubles, ends: Ints, radii: Doubles, colours: Pixels) -> bool:
    """Paints nothing and gives false if an end is no point."""
    for s in range(len(ends)):
        if min(ends[s, 0], ends[s, 1]) < 0 or max(ends[s, 0], ends[s, 1]) >= len(points):
            return False
    for s in range(len(ends)):
        a, b = points[ends[s, 0]], points[ends[s, 1]]
        if _is_near(a[0]) and _is_near(a[1]) and _is_near(b[0]) and _is_near(b[1]) and _is_near(radii[s]):
            colour = (int(colours[s, 0]), int(colours[s, 1]), int(colours[s, 2]))
            _stroke(image, a[0], a[1], b[0], b[1], radii[s], colour)
    return True
