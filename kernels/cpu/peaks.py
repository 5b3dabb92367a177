# ruff: noqa: PLR0917 - compiled functions have no keyword-only arguments
"""The strongest local maxima of one joint's heatmap, found tile by tile on the decode grid."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kernels.cpu._jit import inner
from kernels.cpu.maps import TILE, Floats, Ints, U, fill_region


@inner
def find_peaks(
    plane: Floats, levels: int, maxima: Floats, radius: int, threshold: np.float32, values: Floats, cells: Ints
) -> int:
    """Fills values (M,) and cells (M,) with at most M peaks, strongest first; returns how many.

    A cell is a row-major index of the decode grid. A peak is > threshold, > every earlier and >= every later cell of
    its (2 radius + 1)^2 window: one peak a plateau. Of equal values the lower cell comes first. NaN is no peak and
    suppresses none. maxima are the plane's `tile_maxima`: tiles that cannot hold one of the M strongest are skipped.
    """
    H, W = plane.shape[0] << levels, plane.shape[1] << levels
    radius = min(radius, max(H, W))
    region = np.empty((TILE + 2 * radius, TILE + 2 * radius), np.float32)  # a tile and its halo
    candidates = np.empty(TILE, np.bool_)
    count = 0
    floor = threshold
    for i in range(maxima.shape[0]):
        for j in range(maxima.shape[1]):
            if not maxima[i, j] > floor:
                continue
            top, left = i * TILE - radius, j * TILE - radius
            start = max(top, 0), max(left, 0)
            size = min((i + 1) * TILE + radius, H) - start[0], min((j + 1) * TILE + radius, W) - start[1]
            if size != region.shape:
                region.fill(np.nan)  # beyond the map's edge; NaN is never larger than a cell
            fill_region(plane, levels, start, size, region, (start[0] - top, start[1] - left))
            for y in range(TILE):
                _find_candidates(region, y + radius, radius, floor, candidates)
                for x in range(TILE):
                    if candidates[x] and _beats_window(region, y + radius, x + radius, radius):
                        cell = (i * TILE + y) * W + j * TILE + x
                        count = _insert(values, cells, count, region[y + radius, x + radius], cell)
                        if count == len(values):
                            # Slightly below the weakest: a later peak of equal value in a lower cell replaces it.
                            floor = max(threshold, np.nextafter(values[count - 1], np.float32(0)))
    return count


@inner
def _find_candidates(region: Floats, y: int, radius: int, floor: np.float32, candidates: NDArray[np.bool_]) -> None:
    """Which of the tile's cells in this row are > floor and beat their four direct neighbours; a SIMD loop."""
    if radius == 0:
        for x in range(TILE):
            candidates[x] = region[y, x] > floor
        return
    middle = U(radius)
    for x in range(U(TILE)):
        value = region[y, middle + x]
        beaten = (region[y - 1, middle + x] >= value) | (region[y, middle + x - U(1)] >= value)
        beaten |= (region[y, middle + x + U(1)] > value) | (region[y + 1, middle + x] > value)
        candidates[x] = (value > floor) & (not beaten)


@inner
def _beats_window(region: Floats, y: int, x: int, radius: int) -> bool:
    value = region[y, x]
    for v in range(y - radius, y + radius + 1):
        for u in range(x - radius, x + radius + 1):
            other = region[v, u]
            if other > value or (other == value and (v < y or (v == y and u < x))):
                return False
    return True


@inner
def _insert(values: Floats, cells: Ints, count: int, value: np.float32, cell: int) -> int:
    """Insert into a list sorted by falling value, then cell; a full list loses its weakest. Returns the new count."""
    at = count
    while at > 0 and (value > values[at - 1] or (value == values[at - 1] and cell < cells[at - 1])):
        at -= 1
    if at == len(values):
        return count
    count = min(count + 1, len(values))
    for n in range(count - 1, at, -1):
        values[n], cells[n] = values[n - 1], cells[n - 1]
    values[at], cells[at] = value, cell
    return count
