import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from kernels.cpu import match
from kernels.cpu.assignment import MATCH_LIMIT
from kernels.cpu.tags import tag_mean
from tests.reference import decode as reference


def draw(rng, R, C, temper):
    """(R, C) distances and (R,) values: of any size, in steps of 0.5 (exact ties of rounding), or small integers."""
    value = rng.uniform(0.1, 1, R)
    if temper == "halves":
        return (rng.integers(0, 8, (R, C)) / 2).astype(np.float32), (np.round(value * 4) / 4).astype(np.float32)
    if temper == "integers":
        return rng.integers(0, 3, (R, C)).astype(np.float32), np.full(R, 0.5, np.float32)
    return rng.uniform(0, 4, (R, C)).astype(np.float32), value.astype(np.float32)


def total(distance, value, columns):
    cost = reference.costs(distance, value)
    return sum(cost[r][c] for r, c in enumerate(columns) if c >= 0)


@pytest.mark.parametrize("temper", ["any", "halves", "integers"])
@pytest.mark.parametrize(
    ("rows", "columns"),
    [((1, 13), (1, 13)), ((8, 9), (8, 9)), ((1, 2), (1, 31)), ((1, 31), (1, 2)), ((30, 31), (25, 36))],
)
def test_the_total_cost_is_scipys_least(temper, rows, columns):
    rng = np.random.default_rng(0)
    for _ in range(250):
        R, C = int(rng.integers(*rows)), int(rng.integers(*columns))
        distance, value = draw(rng, R, C, temper)
        ours = match(distance, value)
        matched = ours[ours >= 0]
        assert len(matched) == min(R, C) == len(set(matched.tolist())) and (matched < C).all()
        cost = np.array(reference.costs(distance, value), np.float64)  # exact: below 2^53
        best = np.full(R, -1)
        best[linear_sum_assignment(cost)[0]] = linear_sum_assignment(cost)[1]
        assert total(distance, value, ours) == total(distance, value, best)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 9), st.integers(0, 9), st.integers(0, 9999), st.sampled_from(["any", "halves", "integers"]))
def test_ties_are_broken_as_in_the_reference(R, C, seed, temper):
    distance, value = draw(np.random.default_rng(seed), R, C, temper)
    np.testing.assert_array_equal(match(distance, value), reference.match(distance, value))


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 9999))
def test_nan_infinity_and_huge_numbers_match_as_in_the_reference(R, C, seed):
    rng = np.random.default_rng(seed)
    odd = np.array([np.nan, np.inf, -np.inf, 1e30, 254.5, 255, 256, 0.5, 0], np.float32)
    distance, value = np.abs(rng.choice(odd, (R, C))), rng.choice(np.append(odd, -odd), R)
    np.testing.assert_array_equal(match(distance, value), reference.match(distance, value))


@pytest.mark.parametrize(("R", "C"), [(0, 0), (0, 3), (3, 0)])
def test_with_no_rows_or_no_columns_nothing_is_matched(R, C):
    columns = match(np.zeros((R, C), np.float32), np.zeros(R, np.float32))
    assert columns.shape == (R,) and (columns == -1).all()


def test_halves_are_rounded_to_even():
    one = np.ones(2, np.float32)
    # 0.5 counts as 0: 0 + 0 beats 0 + 1, which beats 1 + 1.
    assert match(np.array([[0.5, 0.0], [1.0, 0.5]], np.float32), one).tolist() == [0, 1]
    # 1.5 counts as 2: 1 + 0 beats 2 + 0, though 1.4 + 0.4 is more than 1.5.
    assert match(np.array([[1.5, 1.4], [0.4, 0.0]], np.float32), one).tolist() == [1, 0]


def test_at_equal_rounded_cost_the_smaller_sum_of_distances_wins():
    assert match(np.array([[0.4, 0.1], [0.3, 0.5]], np.float32), np.ones(2, np.float32)).tolist() == [1, 0]


def test_of_too_many_candidates_the_strongest_is_matched():
    assert match(np.zeros((3, 1), np.float32), np.array([0.3, 0.9, 0.5], np.float32)).tolist() == [-1, 0, -1]


def test_with_everything_equal_rows_take_columns_in_order():
    assert match(np.zeros((3, 5), np.float32), np.ones(3, np.float32)).tolist() == [0, 1, 2]
    assert match(np.zeros((4, 2), np.float32), np.ones(4, np.float32)).tolist() == [0, 1, -1, -1]


def test_the_largest_costs_do_not_overflow():
    distance = np.full((128, 128), 255, np.float32)
    distance[np.arange(128), np.arange(128)[::-1]] = 254
    assert match(distance, np.full(128, -255, np.float32)).tolist() == list(range(127, -1, -1))


def test_read_only_and_other_types_are_taken():
    distance, value = np.array([[2, 0], [0, 2]]), np.ones(2, np.float32)
    value.flags.writeable = False
    assert match(distance.T, value).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("distance", "value"), [((2,), (2,)), ((2, 2), (3,)), ((2, 2), (2, 1)), ((MATCH_LIMIT + 1, 1), (MATCH_LIMIT + 1,))]
)
def test_wrong_shapes_are_named(distance, value):
    with pytest.raises(ValueError, match=r"distance is \("):
        match(np.zeros(distance, np.float32), np.zeros(value, np.float32))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 2), st.integers(0, 9999))
def test_the_mean_is_the_references_to_the_bit(n, T, seed):
    tags = np.random.default_rng(seed).normal(0, 5, (n + 3, T)).astype(np.float32)
    out = np.empty(T, np.float32)
    tag_mean(tags, n, out)
    np.testing.assert_array_equal(out, reference.mean(tags[:n]))
