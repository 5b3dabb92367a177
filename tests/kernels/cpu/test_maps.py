import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels import DecodeOptions
from kernels.cpu.maps import TILE, fill_region, sample, tile_bounds, tile_maxima, unmirror
from tests.reference import decode as reference
from tests.reference.drawn import KINDS, draw_maps


def doubled(plane, levels):
    with np.errstate(invalid="ignore"):  # infinities make NaN
        for _ in range(levels):
            plane = reference.upsample2(plane)
    return plane


def one_map(kind, seed, h, w):
    return draw_maps(kind, seed, K=1, hw=(h, w))[1][0, 0]


drawn = st.builds(one_map, st.sampled_from(KINDS), st.integers(0, 999), st.integers(1, 23), st.integers(1, 23))


@settings(max_examples=40, deadline=None)
@given(drawn, st.integers(0, 2), st.data())
def test_a_region_is_a_part_of_the_doubled_map(plane, levels, data):
    whole = doubled(plane, levels)
    y0, x0 = data.draw(st.integers(0, whole.shape[0] - 1)), data.draw(st.integers(0, whole.shape[1] - 1))
    rows, columns = data.draw(st.integers(1, whole.shape[0] - y0)), data.draw(st.integers(1, whole.shape[1] - x0))
    out = np.full((rows + 3, columns + 2), 7, np.float32)
    fill_region(plane, levels, (y0, x0), (rows, columns), out, (2, 1))
    np.testing.assert_array_equal(out[2 : 2 + rows, 1 : 1 + columns], whole[y0 : y0 + rows, x0 : x0 + columns])
    assert (out[:2] == 7).all() and (out[-1] == 7).all() and (out[:, 0] == 7).all() and (out[:, -1] == 7).all()


@settings(max_examples=20, deadline=None)
@given(drawn, st.integers(0, 2))
def test_a_sample_is_a_cell_of_the_doubled_map(plane, levels):
    whole = doubled(plane, levels)
    rng = np.random.default_rng(0)
    for y, x in zip(rng.integers(0, whole.shape[0], 20), rng.integers(0, whole.shape[1], 20), strict=True):
        np.testing.assert_array_equal(sample(plane, levels, y, x), whole[y, x])


def tiles_of(whole):
    for i in range(-(-whole.shape[0] // TILE)):
        for j in range(-(-whole.shape[1] // TILE)):
            yield (i, j), whole[i * TILE : (i + 1) * TILE, j * TILE : (j + 1) * TILE]


@settings(max_examples=40, deadline=None)
@given(drawn, st.integers(0, 1))
def test_a_tile_maximum_is_exact(plane, levels):
    whole = doubled(plane, levels)
    maxima = np.zeros((-(-whole.shape[0] // TILE), -(-whole.shape[1] // TILE)), np.float32)
    tile_maxima(plane, levels, maxima)
    for at, tile in tiles_of(whole):
        assert maxima[at] == np.where(np.isnan(tile), -np.inf, tile).max()


@settings(max_examples=40, deadline=None)
@given(drawn, st.integers(0, 2))
def test_tile_bounds_hold_every_cell(plane, levels):
    whole = doubled(plane, levels)
    low, high = (np.zeros((-(-whole.shape[0] // TILE), -(-whole.shape[1] // TILE)), np.float32) for _ in "lh")
    tile_bounds(plane, levels, low, high)
    for at, tile in tiles_of(whole):
        numbers = tile[np.isfinite(tile)].astype(float)
        slack = 1e-6 * np.maximum(np.abs(numbers), 1e-30)
        assert (low[at] <= numbers + slack).all() and (numbers - slack <= high[at]).all()


@pytest.mark.parametrize(("joints", "hw"), [(17, (5, 7)), (14, (4, 4))])
def test_the_mirrored_half_is_turned_back(joints, hw):
    heatmaps, tags = draw_maps("noise", 0, T=2, K=joints, hw=hw)
    options = DecodeOptions()
    heat, plain_tags = unmirror(heatmaps, tags, np.array(options.flip_for(joints)))
    want_heat, want_tags = reference.unmirror(heatmaps, tags, options)
    np.testing.assert_array_equal(heat, want_heat)
    np.testing.assert_array_equal(plain_tags, want_tags)


def test_doubling_commutes_with_mirroring_to_the_bit():
    plane = one_map("noise", 1, 9, 13)
    np.testing.assert_array_equal(reference.upsample2(plane[:, ::-1]), reference.upsample2(plane)[:, ::-1])
