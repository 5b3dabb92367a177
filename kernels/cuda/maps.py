# ruff: noqa: PLR0917 - a kernel is one function over many arrays, without keywords; Numba types it
# mypy: disable-error-code="no-untyped-def, no-untyped-call"
"""Heatmaps and tags at any cell of the decode grid, interpolated on the fly. No kernel here.

The decode grid is the network's input (project) or the heatmaps' own cells. Heatmaps (N, T, K, h, w) lie at 1/2 of the
input and tags (N, T, K, h/2, w/2) at 1/4; T = 2 holds the mirrored frame second, as the network gave it. The order of
arithmetic is that of tests/reference/decode.py, and gives the same bits: `FAR * x` is exact, so that fusing it into an
addition changes nothing, and every other product is rounded by `mul`.
"""

from __future__ import annotations

import numpy as np

from kernels.cuda._cuda import device, float_bits, mul
from kernels.rules import FAR, NEAR

HALF = np.float32(0.5)
ZERO = np.float32(0)


@device
def blend(near, far):
    return mul(NEAR, near) + FAR * far


@device
def far_index(fine, size):
    """The coarse cell that adds its quarter to position `fine`; at the border of `size` cells, the cell itself."""
    other = (fine >> 1) - 1 + 2 * (fine & 1)
    return min(max(other, 0), size - 1)


@device
def border(x, size):
    """The offsets from cell x of `size` to the one before and the one after: -1 and 1, or 0 at the border."""
    return max(x - 1, 0) - x, min(x + 1, size - 1) - x


@device
def quad(cells, y, x, up, down, left, right):
    """The four fine cells of cell (y, x): upper left, upper right, lower left, lower right.

    up, down, left, right: the offsets to its neighbours (`border`), -1 or 1, or 0 where the map ends.
    """
    here, above, below = cells[y, x], cells[y + up, x], cells[y + down, x]
    west, east = blend(here, cells[y, x + left]), blend(here, cells[y, x + right])
    return (
        blend(west, blend(above, cells[y + up, x + left])),
        blend(east, blend(above, cells[y + up, x + right])),
        blend(west, blend(below, cells[y + down, x + left])),
        blend(east, blend(below, cells[y + down, x + right])),
    )


@device
def heat_cell(plain, mirror, mirrored, y, x):
    """The heatmap of a joint at its own resolution; if mirrored, the mean with the mirrored frame's twin joint.

    plain, mirror: (h, w), the joint's plane of the frame and its twin's of the mirrored frame.
    """
    value = np.float32(plain[np.uint32(y), np.uint32(x)])
    if mirrored:
        value = (value + np.float32(mirror[np.uint32(y), np.uint32(mirror.shape[1] - 1 - x)])) * HALF
    return value


@device
def heat_at(plain, mirror, mirrored, project, y, x):
    """`heat_cell` interpolated at cell (y, x) of the decode grid."""
    if not project:
        return heat_cell(plain, mirror, mirrored, y, x)
    near_y, near_x = y >> 1, x >> 1
    far_y, far_x = far_index(y, plain.shape[0]), far_index(x, plain.shape[1])
    near = blend(heat_cell(plain, mirror, mirrored, near_y, near_x), heat_cell(plain, mirror, mirrored, near_y, far_x))
    far = blend(heat_cell(plain, mirror, mirrored, far_y, near_x), heat_cell(plain, mirror, mirrored, far_y, far_x))
    return blend(near, far)


@device
def tag_cell(plane, flipped, y, x):
    """A tag map (h/2, w/2) at its own resolution; flipped: a plane of the mirrored frame, turned back."""
    return np.float32(plane[np.uint32(y), np.uint32(plane.shape[1] - 1 - x if flipped else x)])


@device
def tag_half(plane, flipped, y, x):
    """`tag_cell` at cell (y, x) of the heatmaps: up-sampled once."""
    near_y, near_x = y >> 1, x >> 1
    far_y, far_x = far_index(y, plane.shape[0]), far_index(x, plane.shape[1])
    near = blend(tag_cell(plane, flipped, near_y, near_x), tag_cell(plane, flipped, near_y, far_x))
    far = blend(tag_cell(plane, flipped, far_y, near_x), tag_cell(plane, flipped, far_y, far_x))
    return blend(near, far)


@device
def tag_at(plane, flipped, project, y, x):
    """`tag_cell` at cell (y, x) of the decode grid: up-sampled twice, or once without project."""
    if not project:
        return tag_half(plane, flipped, y, x)
    near_y, near_x = y >> 1, x >> 1
    far_y, far_x = far_index(y, 2 * plane.shape[0]), far_index(x, 2 * plane.shape[1])
    near = blend(tag_half(plane, flipped, near_y, near_x), tag_half(plane, flipped, near_y, far_x))
    far = blend(tag_half(plane, flipped, far_y, near_x), tag_half(plane, flipped, far_y, far_x))
    return blend(near, far)


@device
def quarter_offset(after, before):
    """From a cell's lower edge to its centre, moved a quarter towards the larger neighbour; on ties to the lower."""
    return NEAR if after > before else FAR


@device
def ordered(value):
    """An integer that compares as the float32 does (-0 as 0). Not for NaN."""
    bits = np.int64(float_bits(value + ZERO))
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)
