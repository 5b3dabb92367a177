"""The assignment in the simulator equals the host's and the reference's, row by row, ties included."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernels.cpu import match as host_match
from kernels.cuda.assignment import COLUMN_BITS, match, match_kernel, pair_cost, pair_rank, value_cost
from tests.kernels.cuda.simulator import examples, on_device
from tests.reference.decode import costs
from tests.reference.decode import match as reference

pytestmark = [pytest.mark.sim]
LANES = 4  # fewer than rows: a lane has two


def matched(distance, value, max_side=6):
    out = on_device(np.full(len(value), -7), np.int32)
    match_kernel(max_side, LANES)[1, LANES](on_device(distance), on_device(value), out)
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


DISTANCES = np.concatenate([np.arange(0, 255, 0.37), np.arange(0, 4, 1 / 512), [0.5, 1.5, 254.5, 255.0]]).astype(
    np.float32
)


def test_the_cost_of_a_pair_is_exact():
    found = [int(pair_cost(d)) - int(value_cost(np.float32(0.625))) for d in DISTANCES]
    assert [c >> COLUMN_BITS for c in found] == costs(DISTANCES[None], np.array([0.625], np.float32))[0]
    assert not any(c & (2**COLUMN_BITS - 1) for c in found)


def test_ranks_order_as_costs_do():
    ranks = np.array([int(pair_rank(d)) for d in DISTANCES])
    found = np.array([int(pair_cost(d)) for d in DISTANCES])
    np.testing.assert_array_equal(np.unique(ranks, return_inverse=True)[1], np.unique(found, return_inverse=True)[1])
    assert ranks.max() < 2 ** (31 - COLUMN_BITS)


def test_bad_shapes_are_named():
    with pytest.raises(ValueError, match="both 1 to 128"):
        match(np.zeros((0, 3), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int32))
    with pytest.raises(ValueError, match=r"expected \(2,\)"):
        match(np.zeros((2, 3), np.float32), np.zeros(3, np.float32), np.zeros(3, np.int32))
