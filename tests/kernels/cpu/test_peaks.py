import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels import DecodeOptions
from kernels.cpu.maps import TILE, tile_maxima
from kernels.cpu.peaks import find_peaks
from tests.reference import decode as reference
from tests.reference.drawn import KINDS, draw_maps


def peaks(plane, *, levels=0, threshold=0.1, size=5, most=30):
    """[(value, y, x), …] of a map by the compiled code."""
    H, W = plane.shape[0] << levels, plane.shape[1] << levels
    maxima = np.empty((-(-H // TILE), -(-W // TILE)), np.float32)
    tile_maxima(plane, levels, maxima)
    values, cells = np.empty(most, np.float32), np.empty(most, np.int64)
    count = find_peaks(plane, levels, maxima, size // 2, np.float32(threshold), values, cells)
    return [(float(v), int(c) // W, int(c) % W) for v, c in zip(values[:count], cells[:count], strict=True)]


def one_map(kind, seed, h, w):
    return draw_maps(kind, seed, K=1, hw=(h, w))[0][0, 0]


drawn = st.builds(one_map, st.sampled_from(KINDS), st.integers(0, 999), st.integers(1, 22), st.integers(1, 22))


@settings(max_examples=120, deadline=None)
@given(
    drawn,
    st.integers(0, 1),
    st.sampled_from([0.0, 0.1, 0.25, 0.5]),
    st.sampled_from([1, 3, 5, 9, 101]),
    st.sampled_from([1, 3, 30, 128]),
)
def test_peaks_are_those_of_the_reference(plane, levels, threshold, size, most):
    with np.errstate(invalid="ignore"):  # infinities make NaN
        whole = reference.upsample2(plane) if levels else plane
    keep = reference.peaks(whole, DecodeOptions(threshold=threshold, nms_size=size))
    want = [(float(whole[y, x]), int(y), int(x)) for y, x in reference.top_k(whole, keep, most)]
    assert peaks(plane, levels=levels, threshold=threshold, size=size, most=most) == want


@settings(max_examples=20, deadline=None)
@given(drawn)
def test_a_higher_threshold_gives_a_subset(plane):
    assert set(peaks(plane, threshold=0.3, most=2000)) <= set(peaks(plane, threshold=0.1, most=2000))


def test_an_empty_map_has_no_peak():
    assert peaks(np.zeros((40, 40), np.float32)) == []


def test_of_a_flat_map_the_first_cell_is_the_peak():
    assert peaks(np.full((40, 50), 0.5, np.float32)) == [(0.5, 0, 0)]
    assert peaks(np.full((40, 50), 0.5, np.float32), levels=1) == [(0.5, 0, 0)]


def test_a_value_at_the_threshold_is_no_peak():
    plane = np.zeros((8, 8), np.float32)
    plane[4, 4] = np.float32(0.1)
    assert peaks(plane) == []
    plane[4, 4] = np.nextafter(np.float32(0.1), np.float32(1))
    assert [p[1:] for p in peaks(plane)] == [(4, 4)]


@pytest.mark.parametrize("cell", [(0, 0), (0, 49), (39, 0), (39, 49), (0, 20), (20, 0), (39, 16), (15, 49), (16, 16)])
def test_a_peak_is_found_on_borders_of_map_and_tiles(cell):
    plane = np.zeros((40, 50), np.float32)
    plane[cell] = 0.75
    assert peaks(plane) == [(0.75, *cell)]


def test_of_equal_values_in_a_window_the_first_wins_and_outside_it_both_stay():
    plane = np.zeros((20, 40), np.float32)
    plane[5, 14], plane[6, 12] = 0.5, 0.5  # over the border of two tiles
    plane[15, 20], plane[15, 23] = 0.5, 0.5
    assert peaks(plane) == [(0.5, 5, 14), (0.5, 15, 20), (0.5, 15, 23)]


def test_no_more_peaks_than_one_per_3x3_cells():
    rng = np.random.default_rng(0)
    for values in (2, 3, 1000):
        plane = (rng.integers(1, values + 1, (60, 60)) / values).astype(np.float32)
        assert len(peaks(plane, most=3600)) <= 20 * 20


def test_the_strongest_stay_and_ties_go_to_the_lower_cell():
    plane = np.zeros((60, 60), np.float32)
    plane[::6, ::6] = 0.5  # 100 equal peaks
    plane[54, 54] = 0.75
    want = [(0.75, 54, 54), *((0.5, 6 * (n // 10), 6 * (n % 10)) for n in range(29))]
    assert peaks(plane) == want


def test_nan_is_no_peak_and_suppresses_none():
    plane = np.full((20, 20), np.nan, np.float32)
    assert peaks(plane) == []
    plane[10, 10] = 0.5
    assert peaks(plane) == [(0.5, 10, 10)]


def test_infinity_is_a_peak():
    plane = np.zeros((20, 20), np.float32)
    plane[3, 4] = np.inf
    assert peaks(plane, most=1) == [(np.inf, 3, 4)]
