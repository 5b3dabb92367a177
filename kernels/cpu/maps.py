# ruff: noqa: PLR0917 - compiled functions have no keyword-only arguments
"""Maps at decode resolution, computed but not stored: single cells, regions, and bounds of 16x16 tiles.

`levels` says how often a map is doubled on its way to the decode grid: heatmaps 1 or 0, tags 2, 1 or 0. Doubling is
bilinear with pixel centres aligned: 0.75 of the pixel a new one lies in plus 0.25 of that one's neighbour on its side
(at the border, of itself), along rows first, then along columns. Two terms a step and no fused multiply-add, so that
mirroring commutes with it to the bit and every function here gives the same value for the same cell.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kernels.cpu._jit import entry, inner
from kernels.rules import FAR, NEAR

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

TILE = 16  # decode cells; bounds are kept per tile, and peaks and refine skip tiles by them
U = np.uint64  # type of indices: Numba tests signed ones for negative values, which prevents SIMD in loops with offsets
LOWEST = np.float32(-np.inf)


@entry
def unmirror(heatmaps: Floats, tags: Floats, flip: Ints) -> tuple[Floats, Floats]:
    """(2, K, h, w) and (2, K, h', w') to heat (K, h, w) and tags (2, K, h', w'), all as the plain frame lies.

    The heatmap is (plain + mirrored) * 0.5, before any doubling. flip (K,): each joint's mirror twin.
    """
    _, K, h, w = heatmaps.shape
    heat = np.empty((K, h, w), np.float32)
    tag = np.empty_like(tags)
    for k in range(K):
        twin = flip[k]
        for y in range(h):
            plain, mirrored, out = heatmaps[0, k, y], heatmaps[1, twin, y], heat[k, y]
            for x in range(w):
                out[x] = (plain[x] + mirrored[w - 1 - x]) * np.float32(0.5)
        for y in range(tags.shape[2]):
            mirrored, out = tags[1, twin, y], tag[1, k, y]
            for x in range(tags.shape[3]):
                out[x] = mirrored[tags.shape[3] - 1 - x]
                tag[0, k, y, x] = tags[0, k, y, x]
    return heat, tag


@inner
def far_index(index: int, size: int) -> int:
    """The neighbour that contributes to a doubled pixel: below for even, above for odd, clamped to the map."""
    far = (index >> 1) + (index & 1) * 2 - 1
    return min(max(far, 0), size - 1)


@inner
def _doubled(plane: Floats, y: int, x: int) -> np.float32:
    ny, nx = y >> 1, x >> 1
    fy, fx = far_index(y, plane.shape[0]), far_index(x, plane.shape[1])
    near = NEAR * plane[ny, nx] + FAR * plane[ny, fx]
    far = NEAR * plane[fy, nx] + FAR * plane[fy, fx]
    return np.float32(NEAR * near + FAR * far)


@inner
def sample(plane: Floats, levels: int, y: int, x: int) -> np.float32:
    """The value of decode cell (y, x) of a (h, w) map."""
    if levels == 0:
        return np.float32(plane[y, x])
    if levels == 1:
        return np.float32(_doubled(plane, y, x))
    ny, nx = y >> 1, x >> 1
    fy, fx = far_index(y, 2 * plane.shape[0]), far_index(x, 2 * plane.shape[1])
    near = NEAR * _doubled(plane, ny, nx) + FAR * _doubled(plane, ny, fx)
    far = NEAR * _doubled(plane, fy, nx) + FAR * _doubled(plane, fy, fx)
    return np.float32(NEAR * near + FAR * far)


@inner
def quarter(plane: Floats, levels: int, y: int, x: int, joint: Floats) -> None:
    """joint[:2] = the centre of cell (y, x), a quarter towards the larger neighbour in x and y (on ties, the lower)."""
    H, W = plane.shape[0] << levels, plane.shape[1] << levels
    right = sample(plane, levels, y, min(x + 1, W - 1)) > sample(plane, levels, y, max(x - 1, 0))
    below = sample(plane, levels, min(y + 1, H - 1), x) > sample(plane, levels, max(y - 1, 0), x)
    joint[0] = np.float32(x) + np.float32(0.75 if right else 0.25)
    joint[1] = np.float32(y) + np.float32(0.75 if below else 0.25)


@inner
def _double_row(
    source: Floats, y: int, start: int, n: int, at_left: bool, at_right: bool, out: Floats, to: int
) -> None:
    """out[to, : 2 n] = source[y, start : start + n] doubled along itself; at_left, at_right: no neighbour there."""
    end = start + n - 1
    out[to, 0] = NEAR * source[y, start] + FAR * source[y, start if at_left else start - 1]
    out[to, 2 * n - 1] = NEAR * source[y, end] + FAR * source[y, end if at_right else end + 1]
    first = U(start)
    for m in range(U(n - 1)):
        left, right = source[y, first + m], source[y, first + m + U(1)]
        out[to, U(2) * m + U(1)] = NEAR * left + FAR * right
        out[to, U(2) * m + U(2)] = NEAR * right + FAR * left


@inner
def _double_region(
    source: Floats,
    origin: tuple[int, int],
    hw: tuple[int, int],
    start: tuple[int, int],
    size: tuple[int, int],
    out: Floats,
    at: tuple[int, int],
) -> None:
    """`fill_region` of the map doubled from an (h, w) map, of which source holds the part from origin on."""
    (h, w), (y0, x0), (rows, columns) = hw, start, size
    left, right = x0 >> 1, (x0 + columns - 1) >> 1
    n = right - left + 1
    first = far_index(y0, h) if y0 & 1 == 0 else y0 >> 1
    last = far_index(y0 + rows - 1, h) if (y0 + rows) & 1 == 0 else (y0 + rows - 1) >> 1
    along = np.empty((last - first + 1, 2 * n), np.float32)  # the source rows needed, doubled along themselves
    for y in range(first, last + 1):
        _double_row(source, y - origin[0], left - origin[1], n, left == 0, right == w - 1, along, y - first)
    odd, to = U(x0 & 1), U(at[1])
    for r in range(rows):
        near, far = ((y0 + r) >> 1) - first, far_index(y0 + r, h) - first
        for c in range(U(columns)):
            out[at[0] + r, to + c] = NEAR * along[near, odd + c] + FAR * along[far, odd + c]


@inner
def fill_region(
    plane: Floats, levels: int, start: tuple[int, int], size: tuple[int, int], out: Floats, at: tuple[int, int]
) -> None:
    """Decode cells from start (y, x) on, size (rows, columns) of them and all inside the map, into out from at on."""
    (y0, x0), (rows, columns) = start, size
    h, w = plane.shape
    if levels == 0:
        for r in range(rows):
            for c in range(columns):
                out[at[0] + r, at[1] + c] = plane[y0 + r, x0 + c]
    elif levels == 1:
        _double_region(plane, (0, 0), (h, w), start, size, out, at)
    else:
        top, left = max((y0 >> 1) - 1, 0), max((x0 >> 1) - 1, 0)
        bottom, right = min(((y0 + rows - 1) >> 1) + 2, 2 * h), min(((x0 + columns - 1) >> 1) + 2, 2 * w)
        half = np.empty((bottom - top, right - left), np.float32)
        _double_region(plane, (0, 0), (h, w), (top, left), half.shape, half, (0, 0))
        _double_region(half, (top, left), (2 * h, 2 * w), start, size, out, at)


@inner
def tile_maxima(plane: Floats, levels: int, out: Floats) -> None:
    """out[i, j] = the largest decode cell of tile (i, j), exactly; NaN is ignored, -inf if there is nothing else.

    levels is 0 or 1. The doubled map is made row by row, and only its three last source rows are kept; SIMD loops.
    """
    h, w = plane.shape
    along = np.empty((3, 2 * w), np.float32)  # source row y doubled along itself, at y % 3
    top = np.full(w << levels, LOWEST, np.float32)  # the largest value so far in each column of the tiles
    if levels == 1:
        _double_row(plane, 0, 0, w, True, True, along, 0)
    for y in range(h):
        if levels == 0:
            row = plane[y]
            for x in range(w):
                top[x] = row[x] if row[x] > top[x] else top[x]
        else:
            if y + 1 < h:
                _double_row(plane, y + 1, 0, w, True, True, along, (y + 1) % 3)
            _raise_to(along[y % 3], along[max(y - 1, 0) % 3], along[min(y + 1, h - 1) % 3], top)
        if ((y + 1) << levels) % TILE == 0 or y + 1 == h:
            line = out[(y << levels) // TILE]
            for j in range(len(line)):
                best = LOWEST
                for x in range(j * TILE, min(j * TILE + TILE, len(top))):
                    best = top[x] if top[x] > best else best
                line[j] = best
            top.fill(LOWEST)


@inner
def _raise_to(near: Floats, above: Floats, below: Floats, top: Floats) -> None:
    for x in range(len(top)):
        a = NEAR * near[x] + FAR * above[x]
        b = NEAR * near[x] + FAR * below[x]
        best = top[x]
        best = a if a > best else best
        top[x] = b if b > best else best


@inner
def tile_bounds(plane: Floats, levels: int, low: Floats, high: Floats) -> None:
    """low[i, j] <= each decode cell of tile (i, j) <= high[i, j], up to rounding, but for NaN (all NaN: low > high)."""
    h, w = plane.shape
    span = TILE >> levels
    halo = 1 if levels > 0 else 0
    smallest, largest = np.empty(w, np.float32), np.empty(w, np.float32)
    for i in range(low.shape[0]):
        smallest.fill(-LOWEST)
        largest.fill(LOWEST)
        for y in range(max(i * span - halo, 0), min(i * span + span + halo, h)):
            row = plane[y]
            for x in range(w):
                smallest[x] = row[x] if row[x] < smallest[x] else smallest[x]
                largest[x] = row[x] if row[x] > largest[x] else largest[x]
        for j in range(low.shape[1]):
            a, b = -LOWEST, LOWEST
            for x in range(max(j * span - halo, 0), min(j * span + span + halo, w)):
                a = smallest[x] if smallest[x] < a else a
                b = largest[x] if largest[x] > b else b
            low[i, j], high[i, j] = a, b
