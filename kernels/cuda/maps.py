# ruff: noqa: PLR0917 - Numba's device functions have no keywords
# mypy: disable-error-code="no-untyped-def, no-untyped-call"
"""Heatmaps and tags at any cell of the decode grid, interpolated on the fly. No kernel here.

The decode grid is the network's input (project) or the heatmaps' own cells. Heatmaps (N, T, K, h, w) lie at 1/2 of the
input and tags (N, T, D * K, h/2, w/2) at 1/4; T = 2 holds the mirrored frame second, as the network gave it. A tag has
one value or two: of the plain and of the mirrored frame, or where D = 2, of the plain frame alone. Maps are read as
flat arrays, with the offset of a plane in 32 bits: a 64-bit index costs several times as much. The order of
arithmetic is that of tests/reference/decode.py, and gives the same bits: `FAR * x` is exact, so that fusing it into an
addition changes nothing, and every other product is rounded by `mul`.

Beyond the border a map repeats its last cell: blending that with itself gives what `far_index` gives there.
"""

from __future__ import annotations

import numpy as np

from kernels.cuda._cuda import add32, device, float_bits, inlined, int_max, int_min, mad, mul, mul32, sub32, u32
from kernels.rules import FAR, NEAR

HALF = np.float32(0.5)
ZERO = np.float32(0)


@device
def blend(near, far):
    return mul(NEAR, near) + FAR * far


@device
def inside(index, size):
    """The nearest index of 0 .. size - 1."""
    return int_min(int_max(np.int32(index), np.int32(0)), np.int32(size - 1))


@device
def far_index(fine, size):
    """The coarse cell that adds its quarter to position `fine`; at the border of `size` cells, the cell itself."""
    return inside((fine >> 1) - 1 + 2 * (fine & 1), size)


@device
def plane_start(image, plane, planes, cells):
    """The offset of an image's plane in a flat array of maps (images, planes, cells)."""
    return mul32(mad(image, planes, plane), cells)


@device
def tag_start(image, k, twin, K, cells, numbers, value):
    """`plane_start` of the plane that a value (0 or 1) of joint k's tags comes from. numbers: D."""
    if numbers == 2:
        return plane_start(image, mad(K, value, k), mul32(K, 2), cells)
    return plane_start(add32(image, value), twin if value == 1 else k, K, cells)


@inlined
def cell_index(plane, w, y, x):
    """Where cell (y, x) of a map lies in the flat array of maps. plane: where the map begins; w: cells a row."""
    return mad(y, w, add32(plane, x))


@inlined
def mirrored_index(plane, w, y, x):
    """Where it lies in a map of the mirrored frame, whose rows run backwards."""
    return mad(y, w, sub32(add32(plane, w - 1), x))


@device
def heat_cell(maps, plain, mirror, mirrored, w, y, x):
    """The heatmap of a joint at its own resolution; if mirrored, the mean with the mirrored frame's twin joint.

    plain, mirror: offsets of the joint's plane of the frame and of its twin's of the mirrored frame, (h, w) each.
    """
    value = np.float32(maps[u32(cell_index(plain, w, y, x))])
    if mirrored:
        value = (value + np.float32(maps[u32(mirrored_index(mirror, w, y, x))])) * HALF
    return value


@device
def heat_at(maps, plain, mirror, mirrored, project, hw, y, x):
    """`heat_cell` interpolated at cell (y, x) of the decode grid. hw: the map's sides."""
    h, w = hw
    if not project:
        return heat_cell(maps, plain, mirror, mirrored, w, y, x)
    near_y, near_x = y >> 1, x >> 1
    far_y, far_x = far_index(y, h), far_index(x, w)
    near = blend(
        heat_cell(maps, plain, mirror, mirrored, w, near_y, near_x),
        heat_cell(maps, plain, mirror, mirrored, w, near_y, far_x),
    )
    far = blend(
        heat_cell(maps, plain, mirror, mirrored, w, far_y, near_x),
        heat_cell(maps, plain, mirror, mirrored, w, far_y, far_x),
    )
    return blend(near, far)


@device
def tag_cell(maps, plane, flipped, w, y, x):
    """A tag map (h/2, w/2) at its own resolution; flipped: a plane of the mirrored frame, turned back."""
    column = sub32(w - 1, x) if flipped else np.int32(x)
    return np.float32(maps[u32(cell_index(plane, w, y, column))])


@device
def tag_half(maps, plane, flipped, hw, y, x):
    """`tag_cell` at cell (y, x) of the heatmaps: up-sampled once. hw: the tag map's sides."""
    h, w = hw
    near_y, near_x = y >> 1, x >> 1
    far_y, far_x = far_index(y, h), far_index(x, w)
    near = blend(tag_cell(maps, plane, flipped, w, near_y, near_x), tag_cell(maps, plane, flipped, w, near_y, far_x))
    far = blend(tag_cell(maps, plane, flipped, w, far_y, near_x), tag_cell(maps, plane, flipped, w, far_y, far_x))
    return blend(near, far)


@device
def tag_at(maps, plane, flipped, project, hw, y, x):
    """`tag_cell` at cell (y, x) of the decode grid: up-sampled twice, or once without project."""
    if not project:
        return tag_half(maps, plane, flipped, hw, y, x)
    near_y, near_x = y >> 1, x >> 1
    far_y, far_x = far_index(y, 2 * hw[0]), far_index(x, 2 * hw[1])
    near = blend(tag_half(maps, plane, flipped, hw, near_y, near_x), tag_half(maps, plane, flipped, hw, near_y, far_x))
    far = blend(tag_half(maps, plane, flipped, hw, far_y, near_x), tag_half(maps, plane, flipped, hw, far_y, far_x))
    return blend(near, far)


@device
def quarter(after, before):
    """From a cell's lower edge to its centre, moved a quarter towards the larger neighbour; on ties to the lower."""
    return NEAR if after > before else FAR


@device
def ordered(value):
    """An integer that compares as the float32 does (-0 as 0). Not for NaN."""
    bits = np.int32(float_bits(value + ZERO))
    return np.int32(bits ^ ((bits >> 31) & 0x7FFFFFFF))
