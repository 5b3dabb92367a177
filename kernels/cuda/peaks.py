# ruff: noqa: PLR0912, PLR0915, PLR0917 - a kernel is one function over many arrays, without keywords; Numba types it
# mypy: disable-error-code="no-untyped-def, no-untyped-call"
"""Local maxima of every joint's heatmap, and bounds of what each tile of it can be worth to `refine`.

Work at 512x704, K = 17, T = 1, FP32 (heatmaps 256x352, tags 128x176): 6.1 MB of heatmaps and 1.5 MB of tags, each cell
once from DRAM or L2 (halos read 1.56 times as much, the surplus mostly from L1), 0.12 MB of bounds: 2.3 us at 3.35
TB/s. The number of people adds little: 5,984 tiles interpolate their cells at some 24 operations each, 37 M in all, and
a tile without a decode cell above the threshold ends there. Drawn crowds of 1, 10 and 30 people keep 20, 239 and 735
tiles busy, which interpolate again with a halo and compare what is above the threshold with up to 24 neighbours: some
10 k operations each, 0.2, 2.4 and 7 M. Lanes 0-15 and 16-31 of a warp load two runs of 16 neighbouring cells: 64 bytes
each in FP32, two whole sectors.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

from kernels.cuda._cuda import cuda, device, float_bits
from kernels.cuda.maps import ZERO, border, heat_cell, quad, tag_cell

TILE = 16  # heatmap cells a side, 256 threads; not yet measured against 8 and 32
NOTHING = np.float32(-np.inf)
BOUNDS = 5  # of a tile: largest heat on the decode grid (at least 0), -lowest and highest tag 0, the same of tag 1
LAST_INDEX = 0xFFFFFFFF


def capacity(height: int, width: int, radius: int) -> int:
    """No map of height x width has more peaks: any two are further than `radius` apart in x or in y."""
    return -(-height // (radius + 1)) * -(-width // (radius + 1))


@dataclass(frozen=True)
class Tiling:
    """What a block of `peaks` holds of its tile, in heatmap cells a side."""

    tile: int
    ring: int  # cells around the tile that windows of its decode cells reach into
    halo: int  # cells around the tile that those are interpolated from
    scale: int  # decode cells a heatmap cell

    @property
    def side(self) -> int:
        return self.tile + 2 * self.halo

    @property
    def span(self) -> int:
        return self.tile + 2 * self.ring

    @property
    def shared_bytes(self) -> int:
        return 4 * (self.side**2 + (self.span * self.scale) ** 2 + BOUNDS * self.tile**2)


def tiling(radius: int, project: bool, tile: int = TILE) -> Tiling:
    scale = 2 if project else 1
    ring = (radius + scale - 1) // scale
    return Tiling(tile, ring, ring + scale - 1, scale)


@device
def suppressing(value):
    """What a cell can suppress: NaN nothing."""
    return value if value > NOTHING else NOTHING


@functools.cache
def peaks_kernel(radius: int, mirrored: bool, project: bool, tile: int = TILE) -> Any:
    """The kernel for windows of 2 * radius + 1 decode cells; mirrored: T = 2.

    Its blocks are tile x tile threads, and own as many heatmap cells.
    """
    geometry = tiling(radius, project, tile)
    scale, ring, halo, side, span = geometry.scale, geometry.ring, geometry.halo, geometry.side, geometry.span
    threads = tile * tile
    lanes = min(32, threads)
    reach = tile // 2 + 2  # tag cells a side that the tile's decode cells are interpolated from
    cells_shape, fine_shape, parts_shape = (side, side), (span * scale, span * scale), (BOUNDS, threads)

    @cuda.jit
    def find_peaks(heatmaps, tags, orders, threshold, keys, counts, bounds):
        """One block = one tile of joint k of image n; one thread = one of its heatmap cells.

        Appends to keys[n, k] and counts[n, k] (zero before), in any order: a key holds a float32's bits above and the
        inverted row-major index below, so that the larger key is the stronger, or earlier, peak. Writes its tile's
        column of bounds (N, K, BOUNDS, tiles).
        """
        cells = cuda.shared.array(cells_shape, np.float32)
        fine = cuda.shared.array(fine_shape, np.float32)
        parts = cuda.shared.array(parts_shape, np.float32)
        tx, ty = cuda.threadIdx.x, cuda.threadIdx.y
        t = ty * tile + tx
        K, h, w = heatmaps.shape[2], heatmaps.shape[3], heatmaps.shape[4]
        n, k = cuda.blockIdx.z // K, cuda.blockIdx.z % K
        mirror = 1 if mirrored else 0
        heat, mirror_heat = heatmaps[n, 0, k], heatmaps[n, mirror, orders[0, k]]
        x0, y0 = cuda.blockIdx.x * tile, cuda.blockIdx.y * tile

        for i in range(t, side * side, threads):
            y, x = y0 - halo + i // side, x0 - halo + i % side
            if 0 <= y < h and 0 <= x < w:
                cells[i // side, i % side] = heat_cell(heat, mirror_heat, mirrored, y, x)
        for axis in range(2):
            low, high = NOTHING, NOTHING  # low is negated
            if axis <= mirror:
                tag_map = tags[n, axis, orders[0, k] if axis == 1 else k]
                for i in range(t, reach * reach, threads):
                    y, x = y0 // 2 - 1 + i // reach, x0 // 2 - 1 + i % reach
                    if 0 <= y < tag_map.shape[0] and 0 <= x < tag_map.shape[1]:
                        tag = tag_cell(tag_map, axis == 1, y, x)
                        if tag > high:  # noqa: PLR1730 - never NaN
                            high = tag
                        if -tag > low:  # noqa: PLR1730
                            low = -tag
            else:
                low, high = ZERO, ZERO
            parts[1 + 2 * axis, t], parts[2 + 2 * axis, t] = low, high
        cuda.syncthreads()

        highest = ZERO
        y, x = y0 + ty, x0 + tx
        if y < h and x < w:
            if project:
                up, down = border(y, h)
                left, right = border(x, w)
                for own in quad(cells, ty + halo, tx + halo, up, down, left, right):
                    if own > highest:  # noqa: PLR1730 - never NaN
                        highest = own
            elif cells[ty + halo, tx + halo] > highest:
                highest = cells[ty + halo, tx + halo]
        parts[0, t] = highest
        alive = cuda.syncthreads_or(np.int32(highest > threshold))
        if t < lanes:
            for q in range(BOUNDS):
                best = parts[q, t]
                for i in range(t + lanes, threads, lanes):
                    best = max(best, parts[q, i])
                parts[q, t] = best
        if alive:
            for i in range(t, span * span, threads):
                row, column = i // span, i % span
                y, x = y0 - ring + row, x0 - ring + column
                row, column = row * scale, column * scale
                inside = 0 <= y < h and 0 <= x < w
                if project:
                    a, b, c, d = NOTHING, NOTHING, NOTHING, NOTHING
                    if inside:
                        up, down = border(y, h)
                        left, right = border(x, w)
                        a, b, c, d = quad(cells, y - y0 + halo, x - x0 + halo, up, down, left, right)
                    fine[row, column], fine[row, column + 1] = suppressing(a), suppressing(b)
                    fine[row + 1, column], fine[row + 1, column + 1] = suppressing(c), suppressing(d)
                else:
                    fine[row, column] = suppressing(cells[y - y0 + halo, x - x0 + halo]) if inside else NOTHING
        cuda.syncthreads()
        for q in range(t, BOUNDS, threads):
            total = parts[q, 0]
            for i in range(1, lanes):
                total = max(total, parts[q, i])
            bounds[n, k, q, cuda.blockIdx.y * cuda.gridDim.x + cuda.blockIdx.x] = total
        if not alive:
            return

        H, W = h * scale, w * scale
        for corner in range(scale * scale):
            cy, cx = ty + corner // scale * tile, tx + corner % scale * tile  # within the tile, lanes side by side
            y, x = y0 * scale + cy, x0 * scale + cx
            cy, cx = cy + ring * scale, cx + ring * scale
            value = fine[cy, cx]
            if value > threshold and y < H and x < W:
                largest = True
                for dy in range(-radius, radius + 1):
                    for dx in range(-radius, radius + 1):
                        other = fine[cy + dy, cx + dx]
                        earlier = dy < 0 or (dy == 0 and dx < 0)
                        if other > value or (earlier and other == value):
                            largest = False
                            break
                    if not largest:
                        break
                if largest:
                    place = cuda.atomic.add(counts, (n, k), 1)
                    keys[n, k, place] = (np.int64(float_bits(value)) << 32) | (LAST_INDEX - (y * W + x))

    return find_peaks
