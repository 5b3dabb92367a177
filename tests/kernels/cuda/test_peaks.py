"""Peaks and tile bounds against tests/reference, in the simulator: tiles of 4 x 4 cells, so that maps span several."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from kernels.cuda.peaks import capacity, peaks_kernel
from kernels.options import DecodeOptions
from tests.kernels.cuda.simulator import LANES, TILE, examples, flat, on_device, orders_of, sizes_of, tile_bounds
from tests.reference.decode import peaks as reference
from tests.reference.decode import unmirror, upsample2

pytestmark = [pytest.mark.sim, pytest.mark.filterwarnings("ignore::RuntimeWarning")]  # NaN and inf in scalar arithmetic


def find(heatmaps, tags, options, twins=None):
    """Sets of (value, index) of each joint, and the bounds, of heatmaps (T, K, h, w)."""
    T, K, h, w = heatmaps.shape
    scale, radius = 2 if options.project else 1, options.nms_size // 2
    tiles = (-(-w // TILE), -(-h // TILE))
    keys = on_device(np.zeros((K, capacity(h * scale, w * scale, radius)), np.int64))
    counts = on_device(np.zeros(K, np.int32))
    bounds = on_device(np.full(K * 5 * tiles[0] * tiles[1], np.nan, np.float32))
    peaks_kernel(radius, T == 2, options.project, TILE)[(*tiles, K), LANES](
        flat(heatmaps),
        flat(tags),
        sizes_of(K, h, w),
        orders_of(K, twins),
        np.float32(options.threshold),
        keys,
        counts,
        bounds,
    )
    found = []
    for k, count in enumerate(counts.copy_to_host()):
        own = keys.copy_to_host()[k, :count]
        values = (own >> 32).astype(np.int32).view(np.float32)
        found.append({(v, int(i)) for v, i in zip(values, 0xFFFFFFFF - (own & 0xFFFFFFFF), strict=True)})
        assert len(found[-1]) == count
    return found, bounds.copy_to_host().reshape(1, K, 5, -1)[:, :, : 1 + 2 * T]


def expected(heat, options):
    """Likewise, of un-mirrored maps at their own resolution (K, h, w)."""
    heat = upsample2(heat) if options.project else heat
    kept = [reference(plane, options) for plane in heat]
    return [set(zip(plane[keep], np.flatnonzero(keep), strict=True)) for plane, keep in zip(heat, kept, strict=True)]


# Few different values: ties and plateaus everywhere, and NaN; two rows and columns of tiles, the last ones cut.
maps = arrays(np.float32, (1, 1, 6, 6), elements=st.sampled_from([0, 0.05, 0.25, 0.5, 0.5, 1, np.nan, -1]))


@examples(25)
@given(heatmaps=maps, project=st.booleans(), nms_size=st.sampled_from([1, 3, 5]))
def test_equal_the_reference(heatmaps, project, nms_size):
    options = DecodeOptions(project=project, nms_size=nms_size)
    found, _ = find(heatmaps, np.zeros((1, 1, 3, 3), np.float32), options)
    assert found == expected(heatmaps[0], options)


def test_bounds_cover_each_tile():
    rng = np.random.default_rng(3)
    heat = rng.normal(0, 0.1, (1, 1, 6, 8)).astype(np.float32)
    tags = rng.normal(0, 1, (1, 1, 3, 4)).astype(np.float32)
    heat[0, 0, 1, 1], tags[0, 0, 2, 3] = np.nan, np.nan
    _, bounds = find(heat, tags, DecodeOptions())
    np.testing.assert_array_equal(bounds, tile_bounds(heat[0], tags)[:, :, :3])


def test_the_mirrored_frame_is_turned_back():
    rng = np.random.default_rng(4)
    heat = rng.uniform(0, 1, (2, 2, 4, 6)).astype(np.float32)
    tags = rng.normal(0, 1, (2, 2, 2, 3)).astype(np.float32)
    options = DecodeOptions(flip_order=(1, 0))
    found, bounds = find(heat, tags, options, twins=[1, 0])
    plain_heat, plain_tags = unmirror(heat, tags, options)
    assert found == expected(plain_heat, options)
    np.testing.assert_array_equal(bounds, tile_bounds(plain_heat, plain_tags))


def test_a_peak_on_each_corner_is_found():
    heat = np.zeros((1, 1, 6, 6), np.float32)
    heat[0, 0, [0, 0, -1, -1], [0, -1, 0, -1]] = [0.5, 0.6, 0.7, 0.8]
    found, _ = find(heat, np.zeros((1, 1, 3, 3), np.float32), DecodeOptions(project=False))
    assert sorted(i for _, i in found[0]) == [0, 5, 30, 35]


def test_half_precision_maps_are_read_exactly():
    rng = np.random.default_rng(5)
    heat = rng.uniform(0, 1, (1, 1, 4, 4)).astype(np.float16)
    found, _ = find(heat, np.zeros((1, 1, 2, 2), np.float16), DecodeOptions())
    assert found == expected(heat[0].astype(np.float32), DecodeOptions())
