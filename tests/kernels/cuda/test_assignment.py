"""The assignment in the simulator equals the host's and the reference's, row by row, ties included."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernels.cpu import match as host_match
from kernels.cuda.assignment import cost, lanes_for, match, match_kernel, pair_code, pair_stride
from tests.kernels.cuda.simulator import examples, on_device
from tests.reference.decode import costs
from tests.reference.decode import match as reference

pytestmark = [pytest.mark.sim]
THREADS = 8


def matched(distance, value, limit=6):
    out = on_device(np.full(len(value), -7), np.int32)
    match_kernel(limit, THREADS)[1, THREADS](on_device(distance), on_device(value), out)
    return out.copy_to_host()


sides = st.tuples(st.integers(1, 6), st.integers(1, 6))


@examples(30)
@given(shape=sides, seed=st.integers(0, 2**20), steps=st.sampled_from([1, 4, 64]))
def test_equals_host_and_reference_on_ties(shape, seed, steps):
    rng = np.random.default_rng(seed)
    distance = (rng.integers(0, 3 * steps, shape) / steps).astype(np.float32)  # steps = 1: many equal costs
    value = (rng.integers(1, 4, shape[0]) / 4).astype(np.float32)
    found = matched(distance, value)
    np.testing.assert_array_equal(found, reference(distance, value))
    np.testing.assert_array_equal(found, host_match(distance, value))


@pytest.mark.parametrize("shape", [(6, 6), (6, 3), (3, 6)])
def test_equals_the_host_where_every_row_wants_the_same_columns(shape):
    distance = np.outer(np.linspace(1, 1.5, shape[0]), np.linspace(0, 2, shape[1])).astype(np.float32)
    value = np.linspace(0.9, 0.2, shape[0], dtype=np.float32)
    np.testing.assert_array_equal(matched(distance, value), host_match(distance, value))


def test_far_away_and_nan_count_as_255():
    distance = np.array([[np.nan, 300.0], [255.0, np.inf]], np.float32)
    value = np.array([np.nan, 1e9], np.float32)
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(matched(distance, value), host_match(distance, value))


def test_a_pair_in_16_bits_has_its_exact_cost():
    distance = np.concatenate([np.arange(0, 255, 0.37), np.arange(0, 4, 1 / 512), [0.5, 1.5, 254.5, 255.0]]).astype(
        np.float32
    )
    value = np.array([0.625], np.float32)
    codes = np.array([[pair_code(d) for d in distance]])
    value_steps = np.array([round(0.625 * 2**14)])
    found = [cost(codes, value_steps, 0, c, len(distance)) for c in range(len(distance))]
    assert found == costs(distance[None], value)[0]
    assert cost(codes, value_steps, 0, len(distance), len(distance)) == 0


def test_every_code_is_taken_apart():
    code = np.arange(2**16, dtype=np.int64)
    np.testing.assert_array_equal(((code + 128) * 65281) >> 24, (code + 128) // 257)


@pytest.mark.parametrize("limit", [1, 2, 3, 29, 30, 31, 32, 33, 127, 128])
def test_rows_of_pairs_lie_in_different_banks(limit):
    stride = pair_stride(limit)
    assert stride >= limit and stride % 2 == 0
    assert len({row * stride // 2 % 32 for row in range(32)}) == 32
    assert limit <= lanes_for(limit) < 2 * limit


def test_bad_shapes_are_named():
    with pytest.raises(ValueError, match="both 1 to 128"):
        match(np.zeros((0, 3), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int32))
    with pytest.raises(ValueError, match=r"expected \(2,\)"):
        match(np.zeros((2, 3), np.float32), np.zeros(3, np.float32), np.zeros(3, np.int32))
