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
    larger,
    mad,
    mul32,
    shuffle,
    smaller,
    split_index,
    u32,
    warp_ballot,
    warp_max,
    warp_max_key,
)
from kernels.cuda.group import UNSEARCHED
from kernels.cuda.maps import (
    HALF,
    ZERO,
    blend,
    cell_index,
    heat_at,
    heat_cell,
    inside,
    mirrored_index,
    ordered,
    plane_start,
    quarter,
    tag_cell,
    tag_start,
)
from kernels.cuda.peaks import BOUNDS, LAST_INDEX, NOTHING, STRIPS, TILE
from kernels.cuda.tags import rounded_distance, rounded_gap, tag_gap
from kernels.rules import SLACK

WARPS = 16  # of the grid, for each multiprocessor: enough to hide latency, few enough to use each other's results


@device
def unordered(bits):
    """The inverse of `maps.ordered`; NaN for an integer that it gives for no float32."""
    return bits_float(np.int32(bits ^ ((bits >> 31) & 0x7FFFFFFF)))


@device
def key_of(score, index):
    """The larger key is the larger score, and of equal ones the lower row-major index."""
    return (np.int64(ordered(score)) << 32) | (LAST_INDEX - np.int64(index))


@device
def doubled(a, b, c, d):
    """The four fine cells that lie in cells b and c of a row."""
    return blend(b, a), blend(b, c), blend(c, b), blend(c, d)


@device
def doubled_around(a, b, c):
    """The four fine cells that lie in cell b of a row and next to it."""
    return blend(a, b), blend(b, a), blend(b, c), blend(c, b)


@device
def blend_rows(near, far):
    return blend(near[0], far[0]), blend(near[1], far[1]), blend(near[2], far[2]), blend(near[3], far[3])


@device
def doubled_rows(a, b, c, d):
    """As `doubled`, of rows that are doubled already."""
    return blend_rows(b, a), blend_rows(b, c), blend_rows(c, b), blend_rows(c, d)


@device
def doubled_cells(a, b, c, d):
    """4 x 4 cells to the 4 x 4 fine cells that lie in the middle ones."""
    return doubled_rows(
        doubled(a[0], a[1], a[2], a[3]),
        doubled(b[0], b[1], b[2], b[3]),
        doubled(c[0], c[1], c[2], c[3]),
        doubled(d[0], d[1], d[2], d[3]),
    )


@device
def halves_of(a, b, c):
    """3 x 3 tags to the 4 x 4 cells of the heatmap's size in the middle and next to it."""
    a = doubled_around(a[0], a[1], a[2])
    b = doubled_around(b[0], b[1], b[2])
    c = doubled_around(c[0], c[1], c[2])
    return blend_rows(a, b), blend_rows(b, a), blend_rows(b, c), blend_rows(c, b)


@device
def largest_of(row):
    return larger(larger(row[0], row[1]), larger(row[2], row[3]))


@device
def range_gap(a, b, c, tag):
    """`tag_gap` of 3 x 3 tags."""
    low = smaller(smaller(a[0], a[1]), smaller(a[2], b[0]))
    low = smaller(smaller(low, smaller(b[1], b[2])), smaller(c[0], smaller(c[1], c[2])))
    high = larger(larger(a[0], a[1]), larger(a[2], b[0]))
    high = larger(larger(high, larger(b[1], b[2])), larger(c[0], larger(c[1], c[2])))
    return tag_gap(low, high, tag)


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
    decode_cells = np.int32(2 * scale)  # a side of a tag cell
    person_joints = max_people * joints
    values = 2 if mirrored or numbers == 2 else 1  # of a tag
    paired, flipped = values == 2, numbers == 1  # the second value

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

    @device
    def heat_row(maps, plain, mirror, hw, y, x, is_inner):
        """Four cells from (y, x) on. is_inner: none lies beyond the left or right border; else border cells repeat."""
        h, w = hw
        y = inside(y, h)
        if is_inner:
            return inner_heat(maps, cell_index(plain, w, y, x), mirrored_index(mirror, w, y, x))
        return (
            heat_cell(maps, plain, mirror, mirrored, w, y, inside(x, w)),
            heat_cell(maps, plain, mirror, mirrored, w, y, inside(x + 1, w)),
            heat_cell(maps, plain, mirror, mirrored, w, y, inside(x + 2, w)),
            heat_cell(maps, plain, mirror, mirrored, w, y, inside(x + 3, w)),
        )

    @device
    def inner_heat(maps, plain, mirror):
        """Four cells side by side, of one address."""
        at, one, two, three = np.uint64(u32(plain)), np.uint64(1), np.uint64(2), np.uint64(3)
        a, b, c, d = (
            np.float32(maps[at]),
            np.float32(maps[at + one]),
            np.float32(maps[at + two]),
            np.float32(maps[at + three]),
        )
        if mirrored:
            at = np.uint64(u32(mirror))
            a, b = (a + np.float32(maps[at])) * HALF, (b + np.float32(maps[at - one])) * HALF
            c, d = (c + np.float32(maps[at - two])) * HALF, (d + np.float32(maps[at - three])) * HALF
        return a, b, c, d

    @device
    def tag_row(tags, plane, flipped, hw, y, x, is_inner):
        """Three tags from (y, x) on, likewise."""
        h, w = hw
        y = inside(y, h)
        if is_inner:
            at, one, two = np.uint64(u32(cell_index(plane, w, y, x))), np.uint64(1), np.uint64(2)
            if flipped:
                at = np.uint64(u32(mirrored_index(plane, w, y, x)))
                return np.float32(tags[at]), np.float32(tags[at - one]), np.float32(tags[at - two])
            return np.float32(tags[at]), np.float32(tags[at + one]), np.float32(tags[at + two])
        return (
            tag_cell(tags, plane, flipped, w, y, inside(x, w)),
            tag_cell(tags, plane, flipped, w, y, inside(x + 1, w)),
            tag_cell(tags, plane, flipped, w, y, inside(x + 2, w)),
        )

    @device
    def tag_rows(tags, plane, flipped, hw, y, x, is_inner):
        return (
            tag_row(tags, plane, flipped, hw, y - 1, x - 1, is_inner),
            tag_row(tags, plane, flipped, hw, y, x - 1, is_inner),
            tag_row(tags, plane, flipped, hw, y + 1, x - 1, is_inner),
        )

    @device
    def heat_rows(maps, plain, mirror, hw, y, x, is_inner):
        """The heat that tag cell (y, x) is decoded from: 4 x 4 cells; without project its own 2 x 2, upper left."""
        if project:
            top, left = 2 * y - 1, 2 * x - 1
            return (
                heat_row(maps, plain, mirror, hw, top, left, is_inner),
                heat_row(maps, plain, mirror, hw, top + 1, left, is_inner),
                heat_row(maps, plain, mirror, hw, top + 2, left, is_inner),
                heat_row(maps, plain, mirror, hw, top + 3, left, is_inner),
            )
        upper = heat_row(maps, plain, mirror, hw, 2 * y, 2 * x, is_inner)
        lower = heat_row(maps, plain, mirror, hw, 2 * y + 1, 2 * x, is_inner)
        return upper, lower, upper, lower

    @device
    def decoded_tags(a, b, c):
        """The tags of a tag cell's decode cells, of 3 x 3 tags around; without project the upper left 2 x 2 count."""
        rows = halves_of(a, b, c)
        if project:
            return doubled_cells(rows[0], rows[1], rows[2], rows[3])
        upper = rows[1][1], rows[1][2], rows[1][1], rows[1][2]
        lower = rows[2][1], rows[2][2], rows[2][1], rows[2][2]
        return upper, lower, upper, lower

    @device
    def best_of_row(best, heat, own, more, centre, index):
        """The better of `best`, a score and its index, and this row of decode cells, which comes later."""
        score, at = best
        for i in range(decode_cells):
            found = heat[i] - rounded_distance(own[i], more[i], centre[0], centre[1], values)
            if found > score:
                score, at = found, add32(index, i)
        return score, at

    @device
    def search_cell(heatmaps, tags, planes, hw, y, x, centre, least):
        """The best score of tag cell (y, x) and its index; (-inf, 0) if it is below `least`."""
        plain, mirror, tag, second_tag = planes
        h, w = hw
        nothing = NOTHING, np.int32(0)
        tag_hw = (h >> 1, w >> 1)
        if y >= tag_hw[0] or x >= tag_hw[1]:
            return nothing
        if x > 0 and x + 2 < tag_hw[1]:  # computes one address a row, not one a cell
            a, b, c = tag_rows(tags, tag, False, tag_hw, y, x, True)
            heat0, heat1, heat2, heat3 = heat_rows(heatmaps, plain, mirror, hw, y, x, True)
        else:
            a, b, c = tag_rows(tags, tag, False, tag_hw, y, x, False)
            heat0, heat1, heat2, heat3 = heat_rows(heatmaps, plain, mirror, hw, y, x, False)
        gap0, gap1 = range_gap(a, b, c, centre[0]), ZERO
        d, e, f = a, b, c
        if paired:
            d, e, f = tag_rows(tags, second_tag, flipped, tag_hw, y, x, False)
            gap1 = range_gap(d, e, f, centre[1])
        highest = larger(larger(largest_of(heat0), largest_of(heat1)), larger(largest_of(heat2), largest_of(heat3)))
        if highest + SLACK * abs(highest) - rounded_gap(gap0, gap1, values) < least:
            return nothing
        if project:
            heat0, heat1, heat2, heat3 = doubled_cells(heat0, heat1, heat2, heat3)
        own0, own1, own2, own3 = decoded_tags(a, b, c)
        more0, more1, more2, more3 = decoded_tags(d, e, f) if paired else (own0, own1, own2, own3)
        W = mul32(w, scale)
        index = mad(mul32(y, decode_cells), W, mul32(x, decode_cells))
        best = best_of_row(nothing, heat0, own0, more0, centre, index)
        best = best_of_row(best, heat1, own1, more1, centre, add32(index, W))
        if project:
            best = best_of_row(best, heat2, own2, more2, centre, mad(W, 2, index))
            best = best_of_row(best, heat3, own3, more3, centre, mad(W, 3, index))
        return best

    @device
    def search_tile(heatmaps, tags, planes, hw, corner, lane, centre, least):
        """The best key of this lane's tag cells in the tile whose first tag cell is `corner`."""
        best = np.int64(UNSEARCHED)
        for turn in range((tag_tile * tag_tile + lanes - 1) // lanes):
            i = u32(mad(turn, lanes, lane))
            row, column = np.int32(i // u32(tag_tile)), np.int32(i % u32(tag_tile))
            if row < tag_tile:
                y, x = add32(corner[0], row), add32(corner[1], column)
                score, index = search_cell(heatmaps, tags, planes, hw, y, x, centre, least)
                if score > NOTHING:
                    best = max(best, key_of(score, index))
        return best

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

    @cuda.jit(device=True)
    def found_so_far(searches, search):
        """The best key of the parts that are done. One lane reads it, so that all lanes use the same value."""
        best = np.int64(UNSEARCHED)
        if cuda.threadIdx.x == 0:
            best = searches[u32(search)]
        return shuffle(best, 0)

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
