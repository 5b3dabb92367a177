"""The strongest local maxima of one joint's heatmap, found tile by tile on the decode grid."""

from __future__ import annotations

import numpy as np

from kernels.cpu._jit import inner
from kernels.cpu.maps import TILE, Floats, Ints, fill_region


@inner
def find_peaks(
    plane: Floats, levels: int, maxima: Floats, radius: int, threshold: np.float32, values: Floats, cells: Ints
) -> int:
    """Fills values (M,) and cells (M, 2) of (y, x) with at most M peaks, strongest first; returns how many.

    A peak is > threshold, > every earlier and >= every later cell (row-major) of its (2 radius + 1)^2 window: one peak a
    plateau. Of equal values the lower row-major index comes first. NaN is no peak and suppresses none. maxima are the plane's
    `tile_maxima`: tiles that do not exceed the threshold, or the weakest of M peaks, are never interpolated.
    """
    H, W = plane.shape[0] << levels, plane.shape[1] << levels
    radius = min(radius, max(H, W))
    region = np.empty((min(TILE + 2 * radius, H), min(TILE + 2 * radius, W)), np.float32)
    count = 0
    floor = threshold
    for i in range(maxima.shape[0]):
        for j in range(maxima.shape[1]):
            if not maxima[i, j] > floor:
                continue
            top, left = max(i * TILE - radius, 0), max(j * TILE - radius, 0)
            bottom, right = min((i + 1) * TILE + radius, H), min((j + 1) * TILE + radius, W)
            fill_region(plane, levels, top, left, bottom - top, right - left, region)
            for y in range(i * TILE, min((i + 1) * TILE, H)):
                for x in range(j * TILE, min((j + 1) * TILE, W)):
                    value = region[y - top, x - left]
                    if value > floor and _beats_window(region, bottom - top, right - left, y - top, x - left, radius):
                        count = _insert(values, cells, count, value, y, x)
                        if count == len(values):
                            # Equal values may still come: within a row of tiles the order is not row-major.
                            floor = max(threshold, np.nextafter(values[count - 1], np.float32(0)))
    return count


@inner
def _beats_window(region: Floats, rows: int, columns: int, y: int, x: int, radius: int) -> bool:
    value = region[y, x]
    if radius > 0:  # the likeliest to be larger, first
        if x + 1 < columns and region[y, x + 1] > value:
            return False
        if y + 1 < rows and region[y + 1, x] > value:
            return False
    for v in range(max(y - radius, 0), min(y + radius + 1, rows)):
        for u in range(max(x - radius, 0), min(x + radius + 1, columns)):
            other = region[v, u]
            if other > value or (other == value and (v < y or (v == y and u < x))):
                return False
    return True


@inner
def _insert(values: Floats, cells: Ints, count: int, value: np.float32, y: int, x: int) -> int:
    """Into a list sorted by falling value, then by cell; the weakest falls off when it is full. Returns the new count."""
    at = count
    while at > 0 and (
        value > values[at - 1]
        or (value == values[at - 1] and (y < cells[at - 1, 0] or (y == cells[at - 1, 0] and x < cells[at - 1, 1])))
    ):
        at -= 1
    if at == len(values):
        return count
    count = min(count + 1, len(values))
    for n in range(count - 1, at, -1):
        values[n] = values[n - 1]
        cells[n] = cells[n - 1]
    values[at] = value
    cells[at, 0], cells[at, 1] = y, x
    return count
