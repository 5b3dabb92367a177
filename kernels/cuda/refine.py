# ruff: noqa: PLR0915, PLR0917 - Numba's functions have no keywords, and stand in the one that makes the kernel
# mypy: disable-error-code="no-untyped-def, no-untyped-call"
"""Missing joints: for each person and joint the cell of the largest value - rint(tag distance), if of value > 0.

A full search reads both maps for every missing joint. `peaks` left for each tile its largest heat and its range of
tags, which bound the score of its cells. A warp takes tiles by falling bound, until none is left whose bound is not
below the best score. In a tile each lane has tag cells, of 4 x 4 decode cells each, which it bounds likewise by their
heat and the tags around before it interpolates anything. Bounds hold for float32 as computed, so that nothing that
could win or tie is skipped, and the result depends neither on the order of the search nor on how warps share it.

Work at 512x704, K = 17, T = 1: each missing joint reads 352 bounds of 12 bytes (4 KB), and for each tile searched 256
heatmap and 64 tag cells with their surroundings, mostly from L1 and L2. How many tiles depends on how far the
background's tags are from the person's; worst case, maps without contrast: all 352. Counts for drawn crowds:
benchmarks/kernels_ptx.md.
"""

from __future__ import annotations

import functools

import numpy as np

from kernels.cuda._cuda import (
    Kernel,
    add32,
    bits_float,
    cuda,
    device,
    int_max,
    int_min,
    kernel,
    mad,
    mul32,
    shuffle,
    split_index,
    u32,
    warp_ballot,
    warp_max,
    warp_max_key,
)
from kernels.cuda.group import UNSEARCHED
from kernels.cuda.maps import ZERO, heat_at, inside, plane_start, quarter, tag_start
from kernels.cuda.peaks import BOUNDS, LAST_INDEX, NOTHING, STRIPS, TILE
from kernels.cuda.tags import rounded_gap, tag_gap
from kernels.cuda.tile_search import search_function

WARPS = 16  # of the grid, for each multiprocessor: enough to hide latency, few enough to use each other's results


@device
def unordered(bits):
    """The inverse of `maps.ordered`; NaN for an integer that it gives for no float32."""
    return bits_float(np.int32(bits ^ ((bits >> 31) & 0x7FFFFFFF)))


@cuda.jit(device=True)
def found_so_far(searches, search):
    """The best key of the parts that are done. One lane reads it, so that all lanes use the same value."""
    best = np.int64(UNSEARCHED)
    if cuda.threadIdx.x == 0:
        best = searches[u32(search)]
    return shuffle(best, 0)


@functools.cache
def refine_kernel(
    max_people: int, joints: int, mirrored: bool, project: bool, tile: int = TILE, numbers: int = 1
) -> Kernel:
    """The kernel for up to `max_people` people of `joints` joints; mirrored: T = 2; numbers: D.

    tile as given to `peaks_kernel`. Blocks are one warp.
    """
    cell_pixels = np.float32(1 if project else 2)  # input pixels a decode cell
    lanes, tag_tile = tile * STRIPS, tile // 2
    scale, images = 2 if project else 1, 2 if mirrored else 1
    person_joints = max_people * joints
    values = 2 if mirrored or numbers == 2 else 1  # of a tag
    paired = values == 2
    search_tile = search_function(mirrored, project, tile, numbers)

    @device
    def tiles_across(side):
        """How many tiles a side of the heatmap has."""
        return np.int32(u32(side + tile - 1) // u32(tile))

    @device
    def tile_bound(bounds, at, tiles, tag0, tag1):
        """No cell of the tile has a higher score. at: of its first entry in bounds."""
        low, high = -bounds[u32(add32(at, tiles))], bounds[u32(mad(tiles, 2, at))]
        gap0, gap1 = tag_gap(low, high, tag0), ZERO
        if paired:
            low, high = -bounds[u32(mad(tiles, 3, at))], bounds[u32(mad(tiles, 4, at))]
            gap1 = tag_gap(low, high, tag1)
        return bounds[u32(at)] - rounded_gap(gap0, gap1, values)

    @cuda.jit(device=True)
    def write_joint(heatmaps, plain, mirror, hw, index, keypoints, to):
        """The cell of this index as a keypoint, if its value is above 0. A warp calls: a lane for each neighbour."""
        t = np.int32(cuda.threadIdx.x)
        H, W = mul32(hw[0], scale), mul32(hw[1], scale)
        y, x = np.int32(u32(index) // u32(W)), np.int32(u32(index) % u32(W))
        below, right = np.int32(t == 3) - np.int32(t == 4), np.int32(t == 1) - np.int32(t == 2)
        own_y, own_x = inside(add32(y, below), H), inside(add32(x, right), W)
        own = heat_at(heatmaps, plain, mirror, mirrored, project, hw, own_y, own_x)
        shift_x = quarter(shuffle(own, 1), shuffle(own, 2))
        shift_y = quarter(shuffle(own, 3), shuffle(own, 4))
        if t == 0 and own > ZERO:
            keypoints[u32(to)] = (np.float32(x) + shift_x) * cell_pixels
            keypoints[u32(add32(to, 1))] = (np.float32(y) + shift_y) * cell_pixels
            keypoints[u32(add32(to, 2))] = own

    @device
    def planes_of(image, k, twin, K, hw):
        """Where joint k's planes begin, in an image's two frames: heat and twin's heat, first and second tags."""
        map_cells, tag_cells = mul32(hw[0], hw[1]), mul32(hw[0] >> 1, hw[1] >> 1)
        return (
            plane_start(image, k, K, map_cells),
            plane_start(add32(image, 1), twin, K, map_cells),
            tag_start(image, k, twin, K, tag_cells, numbers, 0),
            tag_start(image, k, twin, K, tag_cells, numbers, 1),
        )

    @cuda.jit(device=True)
    def search_part(maps, planes, hw, bounds_at, part, centre, best):
        """The best key of the tiles tile_part, tile_part + tile_parts, ..., or `best` if that is better.

        maps: heatmaps, tags, bounds; bounds_at: of the joint's first tile; part: tile_part, tile_parts. A warp calls.
        """
        heatmaps, tags, bounds = maps
        tile_part, tile_parts = part
        t, across = np.int32(cuda.threadIdx.x), tiles_across(hw[1])
        tiles = mul32(across, tiles_across(hw[0]))
        least = unordered(np.int32(best >> 32))
        start = tile_part
        while start < tiles:
            own = mad(t, tile_parts, start)
            bound = NOTHING
            if own < tiles:
                bound = tile_bound(bounds, add32(bounds_at, own), tiles, centre[0], centre[1])
            while True:
                highest = warp_max(bound)
                if highest == NOTHING or highest < least:
                    break
                lane = np.int32(cuda.ffs(warp_ballot(bound == highest)) - 1)
                if t == lane:
                    bound = NOTHING
                i = mad(lane, tile_parts, start)
                row = np.int32(u32(i) // u32(across))
                corner = mul32(row, tag_tile), mul32(mad(row, -across, i), tag_tile)
                found = search_tile(heatmaps, tags, planes, hw, corner, t, centre, least)
                best = max(best, warp_max_key(found))
                least = unordered(np.int32(best >> 32))
            start = mad(tile_parts, lanes, start)
        return best

    @cuda.jit(device=True)
    def hand_in(searches, search, tile_parts, best):
        """Add a part's best key to the search. Returns the best cell's index to who does the last part, else -1."""
        index = np.int32(-1)
        if cuda.threadIdx.x == 0:
            cuda.atomic.max(searches, u32(search), best)
            cuda.threadfence()
            if cuda.atomic.add(searches, u32(add32(search, person_joints)), 1) == tile_parts - 1:
                cuda.threadfence()
                best = cuda.atomic.max(searches, u32(search), UNSEARCHED)
                if best > UNSEARCHED:
                    index = np.int32(LAST_INDEX - (best & LAST_INDEX))
        return shuffle(index, 0)

    @kernel
    def refine(heatmaps, tags, sizes, orders, bounds, centres, missing, searches, keypoints):
        """The blocks of an image, one warp each, share its missing joints, and where there are more blocks, the tiles.

        sizes: K, h, w; heatmaps and tags are flat. searches[n, 0] takes each joint's best key by atomic maximum,
        whatever the order; searches[n, 1] counts the parts that are done, and who does the last one writes the joint
        into keypoints, flat (N, max_people, K, 3). `group` resets both.
        """
        n, (K, h, w) = np.int32(cuda.blockIdx.y), sizes
        tiles = mul32(tiles_across(w), tiles_across(h))
        listed = missing[u32(mul32(n, 1 + person_joints))]
        if listed == 0:
            return
        warps = np.int32(cuda.gridDim.x)
        tile_parts = int_min(int_max(np.int32(u32(warps) // u32(listed)), np.int32(1)), tiles)
        item = np.int32(cuda.blockIdx.x)
        while item < mul32(listed, tile_parts):
            entry, tile_part = split_index(item, tile_parts)
            part = tile_part, tile_parts
            target = missing[u32(mad(n, 1 + person_joints, add32(entry, 1)))]
            person, k = split_index(target, joints)
            planes = planes_of(mul32(n, images), k, orders[0, u32(k)], K, (h, w))
            to = mul32(mad(n, max_people, person), 2)
            centre = centres[u32(to)], centres[u32(add32(to, 1))]
            search = mad(n, 2 * person_joints, target)
            best = found_so_far(searches, search)
            bounds_at = mul32(mul32(mad(n, K, k), BOUNDS), tiles)
            best = search_part((heatmaps, tags, bounds), planes, (h, w), bounds_at, part, centre, best)
            index = hand_in(searches, search, tile_parts, best)
            if index >= 0:
                to = mul32(mad(n, person_joints, target), 3)
                write_joint(heatmaps, planes[0], planes[1], (h, w), index, keypoints, to)
            item = add32(item, warps)

    return refine
