# ruff: noqa: PLR0915, PLR0917 - Numba's functions have no keywords, and stand in the one that makes the kernel
# mypy: disable-error-code="no-untyped-def, no-untyped-call"
"""Local maxima of every joint's heatmap, and bounds of the scores that `refine` can find in each of its tiles.

One warp has a tile of 16 x 16 heatmap cells, and each of its lanes eight cells one below the other: what is blended
along rows serves the cells above and below too, and nothing is shared. Only a tile with a decode cell above the
threshold goes on, in shared memory, to compare cells with their windows.

Work at 512x704, K = 17, T = 1, FP32 (heatmaps 256x352, tags 128x176): 6.1 MB of heatmaps and 1.5 MB of tags, each cell
once from DRAM or L2, 0.12 MB of bounds: 2.3 us at 3.35 TB/s. What it executes: benchmarks/kernels_ptx.md; most of it is
the same for every tile, and drawn crowds of 1, 10 and 30 people keep 20, 239 and 735 tiles of 5,984 busy. Lanes 0-15
and 16-31 load two runs of 16 neighbouring cells: 64 bytes each in FP32, two whole sectors.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from kernels.cuda._cuda import (
    Kernel,
    add32,
    cuda,
    device,
    float_bits,
    int_max,
    int_min,
    kernel,
    larger,
    mad,
    mul32,
    split_index,
    u32,
    warp_barrier,
    warp_max,
)
from kernels.cuda.maps import (
    HALF,
    ZERO,
    blend,
    cell_index,
    heat_cell,
    inside,
    mirrored_index,
    plane_start,
    tag_cell,
    tag_start,
)

TILE = 16  # heatmap cells a side
STRIPS = 2  # lanes one below the other: TILE * STRIPS are a warp
NOTHING = np.float32(-np.inf)
BOUNDS = 5  # of a tile: largest heat on the decode grid (at least 0), -lowest and highest tag 0, the same of tag 1
LAST_INDEX = 0xFFFFFFFF


def capacity(height: int, width: int, radius: int) -> int:
    """No map of height x width has more peaks: any two are further than `radius` apart in x or in y."""
    return -(-height // (radius + 1)) * -(-width // (radius + 1))


@dataclass(frozen=True)
class Tiling:
    """What a block of `peaks` stores of its tile, in heatmap cells along a side."""

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
        return 4 * (self.side**2 + (self.span * self.scale) ** 2)


def tiling(radius: int, project: bool, tile: int = TILE) -> Tiling:
    scale = 2 if project else 1
    ring = (radius + scale - 1) // scale
    return Tiling(tile, ring, ring + scale - 1, scale)


@functools.cache
def peaks_kernel(radius: int, mirrored: bool, project: bool, tile: int = TILE, numbers: int = 1) -> Kernel:
    """The kernel for windows of 2 * radius + 1 decode cells; mirrored: T = 2; numbers: D.

    Its blocks are one warp of STRIPS * tile threads, and own tile x tile heatmap cells.
    """
    geometry = tiling(radius, project, tile)
    scale, ring, side, span = geometry.scale, geometry.ring, geometry.side, geometry.span
    halo, width = geometry.halo, span * geometry.scale
    lanes, rows = tile * STRIPS, tile // STRIPS
    images = 2 if mirrored else 1
    values = 2 if mirrored or numbers == 2 else 1
    reach = tile // 2 + 2  # tag cells a side that the tile's decode cells are interpolated from
    heat_size, fine_size = side * side, width * width

    @device
    def beside(maps, at, mirror_at, step):
        """`heat_cell` so many columns beside the cell at these places."""
        value = np.float32(maps[np.uint64(at + step)])
        if mirrored:
            value = (value + np.float32(maps[np.uint64(mirror_at - step)])) * HALF
        return value

    @device
    def highest_of(maps, plain, mirror, hw, first, x, left, right):
        """The largest decode cell of a lane's cells, at least 0: from row `first` on in column x.

        left, right: steps to the neighbouring columns. Border cells repeat beyond the map, which adds no new value.
        """
        h, w = hw
        highest = ZERO
        west_above, east_above, west, east = ZERO, ZERO, ZERO, ZERO
        for row in range(-1, rows + 1) if project else range(rows):
            y = inside(add32(first, row), h)
            at = np.int64(u32(cell_index(plain, w, y, x)))
            mirror_at = np.int64(u32(mirrored_index(mirror, w, y, x)))
            here = beside(maps, at, mirror_at, 0)
            if project:
                west_below = blend(here, beside(maps, at, mirror_at, left))
                east_below = blend(here, beside(maps, at, mirror_at, right))
                if row >= 1:
                    upper = larger(blend(west, west_above), blend(east, east_above))
                    lower = larger(blend(west, west_below), blend(east, east_below))
                    highest = larger(highest, larger(upper, lower))
                west_above, east_above, west, east = west, east, west_below, east_below
            else:
                highest = larger(highest, here)
        return highest

    @device
    def tag_range(tags, plane, flipped, hw, y0, x0, row, column):
        """-lowest and highest of the tags under the tile that a lane reads, from this one on; NaN is ignored."""
        low, high = NOTHING, NOTHING
        x = inside((x0 >> 1) - 1 + int_min(column, np.int32(reach - 1)), hw[1])
        last = int_min(np.int32((y0 >> 1) + reach - 2), np.int32(hw[0] - 1))
        for turn in range((reach + STRIPS - 1) // STRIPS):
            y = int_min(int_max(mad(turn, STRIPS, add32(row, (y0 >> 1) - 1)), np.int32(0)), last)
            tag = tag_cell(tags, plane, flipped, hw[1], y, x)
            low, high = larger(low, -tag), larger(high, tag)
        return low, high

    @cuda.jit(device=True)
    def fill_fine(maps, plain, mirror, hw, y0, x0, heat, fine):
        """fine (width, width) = the tile's decode cells and their ring; -inf for NaN and outside of the map."""
        h, w = hw
        t = np.int32(cuda.threadIdx.x)
        i = t
        while i < side * side:
            row, column = split_index(i, side)
            y, x = inside(add32(row, y0 - halo), h), inside(add32(column, x0 - halo), w)
            heat[u32(i)] = heat_cell(maps, plain, mirror, mirrored, w, y, x)
            i = add32(i, lanes)
        warp_barrier()
        i = t
        while i < span * span:
            row, column = split_index(i, span)
            y, x = add32(row, y0 - ring), add32(column, x0 - ring)
            is_map = y >= 0 and y < h and x >= 0 and x < w
            if project:
                at = np.uint64(u32(mad(row, side, add32(column, side + 1))))
                here, above, below = heat[at], heat[at - np.uint64(side)], heat[at + np.uint64(side)]
                west, east = blend(here, heat[at - np.uint64(1)]), blend(here, heat[at + np.uint64(1)])
                above_west = blend(above, heat[at - np.uint64(side + 1)])
                above_east = blend(above, heat[at - np.uint64(side - 1)])
                below_west = blend(below, heat[at + np.uint64(side - 1)])
                below_east = blend(below, heat[at + np.uint64(side + 1)])
                to = np.uint64(u32(mad(row, 2 * width, mul32(column, 2))))
                fine[to] = larger(blend(west, above_west), NOTHING) if is_map else NOTHING
                fine[to + np.uint64(1)] = larger(blend(east, above_east), NOTHING) if is_map else NOTHING
                fine[to + np.uint64(width)] = larger(blend(west, below_west), NOTHING) if is_map else NOTHING
                fine[to + np.uint64(width + 1)] = larger(blend(east, below_east), NOTHING) if is_map else NOTHING
            else:
                fine[u32(i)] = larger(heat[u32(i)], NOTHING) if is_map else NOTHING
            i = add32(i, lanes)
        warp_barrier()

    @device
    def beats_window(fine, at, value):
        """Whether a cell is the largest of its window, and the first of equal ones."""
        largest = True
        for dy in range(-radius, radius + 1):
            for dx in range(-radius, radius + 1):
                other = fine[np.uint64(np.int64(at) + (dy * width + dx))]
                earlier = dy < 0 or (dy == 0 and dx < 0)
                largest = largest and not (other > value or (earlier and other == value))
        return largest

    @device
    def beats_neighbours(fine, at, value):
        """The same for its four neighbours only: few cells that are not peaks pass this test."""
        if radius == 0:
            return True
        lower = fine[at - np.uint64(width)] < value and fine[at - np.uint64(1)] < value
        return lower and fine[at + np.uint64(1)] <= value and fine[at + np.uint64(width)] <= value

    @kernel
    def find_peaks(heatmaps, tags, sizes, orders, threshold, keys, counts, bounds):
        """One block = one tile of joint k of image n, one warp. sizes: K, h, w; heatmaps and tags are flat.

        Appends to keys[n * K + k] and counts[n * K + k] (zero before), in any order: a key holds a float32's bits above
        and the inverted row-major index below, so that the larger key is the stronger, or earlier, peak. Writes its
        tile's entries of bounds, flat (N, K, BOUNDS, tiles).
        """
        heat = cuda.shared.array(heat_size, np.float32)
        fine = cuda.shared.array(fine_size, np.float32)
        t = cuda.threadIdx.x
        K, h, w = sizes
        plane = np.int32(cuda.blockIdx.z)
        n = np.int32(u32(plane) // u32(K))
        k = mad(n, -K, plane)
        twin = orders[0, u32(k)]
        first = np.int32(n * images)
        y0, x0 = mul32(cuda.blockIdx.y, tile), mul32(cuda.blockIdx.x, tile)
        plain, mirror = plane_start(first, k, K, mul32(h, w)), plane_start(first + 1, twin, K, mul32(h, w))

        row, column = np.int32(u32(t) // u32(tile)), np.int32(u32(t) % u32(tile))
        x, y = inside(add32(x0, column), w), mad(row, rows, y0)
        if x0 > 0 and x0 + tile < w:  # with constant steps it takes half of the instructions
            highest = highest_of(heatmaps, plain, mirror, (h, w), y, x, -1, 1)
        else:
            left, right = np.int64(inside(x - 1, w) - x), np.int64(inside(x + 1, w) - x)
            highest = highest_of(heatmaps, plain, mirror, (h, w), y, x, left, right)
        highest = warp_max(highest)
        tiles = mul32(cuda.gridDim.x, cuda.gridDim.y)
        to = mad(mul32(plane, BOUNDS), tiles, mad(cuda.blockIdx.y, cuda.gridDim.x, cuda.blockIdx.x))
        if t == 0:
            bounds[u32(to)] = highest
        tag_hw = (h >> 1, w >> 1)
        for value in range(values):
            tag_plane = tag_start(first, k, twin, K, mul32(tag_hw[0], tag_hw[1]), numbers, value)
            flipped = value == 1 and numbers == 1
            low, high = tag_range(tags, tag_plane, flipped, tag_hw, y0, x0, row, column)
            low, high = warp_max(low), warp_max(high)
            if t == 0:
                bounds[u32(mad(tiles, 1 + 2 * value, to))] = low
                bounds[u32(mad(tiles, 2 + 2 * value, to))] = high
        if not highest > threshold:
            return

        fill_fine(heatmaps, plain, mirror, (h, w), y0, x0, heat, fine)
        for turn in range(tile * scale * tile * scale // lanes):
            i = u32(mad(turn, lanes, t))
            row = np.int32(i // u32(tile * scale))
            column = mad(row, -tile * scale, i)
            at = np.uint64(u32(mad(row, width, add32(column, ring * scale * (width + 1)))))
            value = fine[at]
            if value > threshold and beats_neighbours(fine, at, value) and beats_window(fine, at, value):
                index = (y0 * scale + row) * (w * scale) + x0 * scale + column
                place = cuda.atomic.add(counts, plane, 1)
                keys[plane, place] = (np.int64(float_bits(value)) << 32) | (LAST_INDEX - np.int64(index))

    return find_peaks
