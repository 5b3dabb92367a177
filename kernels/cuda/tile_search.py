# ruff: noqa: PLR0915, PLR0917 - Numba's functions have no keywords, and stand in the one that makes them
# mypy: disable-error-code="no-untyped-def, no-untyped-call"
"""The best decode cell of one tile for a missing joint, by value - rint(tag distance): what a warp of `refine` does.

Each lane has tag cells, of 4 x 4 decode cells each (2 x 2 without project). No kernel here.
"""

from __future__ import annotations

import functools

import numpy as np

from kernels.cuda._cuda import Kernel, add32, device, larger, mad, mul32, smaller, u32
from kernels.cuda.group import UNSEARCHED
from kernels.cuda.maps import HALF, ZERO, blend, cell_index, heat_cell, inside, mirrored_index, ordered, tag_cell
from kernels.cuda.peaks import LAST_INDEX, NOTHING, STRIPS
from kernels.cuda.tags import rounded_distance, rounded_gap, tag_gap
from kernels.rules import SLACK


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


@device
def tag_row(tags, plane, flipped, hw, y, x, is_inner):
    """Three tags from (y, x) on. is_inner: none lies beyond the left or right border; else border cells repeat."""
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


@functools.cache
def heat_function(mirrored: bool, project: bool) -> Kernel:
    """`heat_rows`; mirrored: T = 2."""

    @device
    def heat_row(maps, plain, mirror, hw, y, x, is_inner):
        """Four cells from (y, x) on. is_inner as in `tag_row`."""
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

    return heat_rows


@functools.cache
def search_function(mirrored: bool, project: bool, tile: int, numbers: int) -> Kernel:
    """`search_tile`; mirrored: T = 2; tile as given to `peaks_kernel`; numbers: D."""
    lanes, tag_tile = tile * STRIPS, tile // 2
    scale = 2 if project else 1
    decode_cells = np.int32(2 * scale)  # a side of a tag cell
    values = 2 if mirrored or numbers == 2 else 1  # of a tag
    paired, flipped = values == 2, numbers == 1  # the second value
    heat_rows = heat_function(mirrored, project)

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

    return search_tile
