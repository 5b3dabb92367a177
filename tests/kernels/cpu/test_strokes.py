"""Strokes: the reference's pixels everywhere, at the borders too; what is not finite is left out."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kernels.cpu.strokes import paint
from tests.reference.strokes import paint as reference_paint

ROUNDING = 1.01  # levels a stroke: coverage is rounded to 1/256, and the blend to a level

coordinates = st.one_of(st.floats(-40, 60), st.integers(-5, 30).map(float), st.just(5e-324))


def strokes(rng, number):
    return rng.integers(0, 6, (number, 2)), rng.uniform(0, 9, number), rng.integers(0, 256, (number, 3), dtype=np.uint8)


def picture(rng, hw):
    return rng.integers(0, 256, (*hw, 3), dtype=np.uint8)


@settings(max_examples=200, deadline=None)
@given(
    st.integers(0, 9999),
    st.tuples(st.integers(1, 24), st.integers(1, 24)),
    st.lists(st.tuples(coordinates, coordinates), min_size=6, max_size=6),
    st.integers(0, 3),
)
@example(0, (24, 24), [(0.0, 0.0), (5e-324, 20.0), (20.0, 5e-324), (20.0, 20.0), (0.0, 20.0), (20.0, 0.0)], 3)
def test_any_strokes_are_those_of_the_reference(seed, hw, points, number):
    rng = np.random.default_rng(seed)
    image, xy = picture(rng, hw), np.array(points)
    ends, radii, colours = strokes(rng, number)
    expected = reference_paint(image, xy, ends, radii, colours)
    paint(image, xy, ends, radii, colours)
    np.testing.assert_allclose(image, expected, atol=ROUNDING * number + 1e-9)


def test_a_stroke_and_a_disc_checked_by_eye():
    image = np.zeros((5, 7, 3), np.uint8)
    points = np.array([[1.0, 1.0], [4.0, 1.0], [5.0, 3.5]])
    paint(image, points, np.array([[0, 1], [2, 2]]), np.array([0.75, 0.5]), np.full((2, 3), 255, np.uint8))
    assert image[..., 0].tolist() == [
        [0, 64, 64, 64, 64, 0, 0],  # 1 from the line, radius 0.75: a quarter
        [64, 255, 255, 255, 255, 64, 0],
        [0, 64, 64, 64, 64, 0, 0],
        [0, 0, 0, 0, 0, 128, 0],  # 0.5 from the centre, radius 0.5: half
        [0, 0, 0, 0, 0, 128, 0],
    ]


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf, 1e30, -1e308, 1.1e7])
def test_what_is_not_finite_or_too_far_is_left_out_and_the_rest_painted(odd):
    image, expected = np.zeros((2, 9, 9, 3), np.uint8)
    points = np.array([[2.0, 2.0], [6.0, 6.0], [odd, 3.0], [3.0, odd]])
    white = np.full((5, 3), 255, np.uint8)
    radii = np.array([1.0, 2.0, 2.0, odd, 1.0])
    paint(image, points, np.array([[0, 1], [0, 2], [3, 1], [0, 0], [3, 2]]), radii, white)
    paint(expected, points, np.array([[0, 1]]), radii[:1], white[:1])
    assert expected.any()
    np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize("far", [1e3, 1e5, 9.9e6])
@pytest.mark.parametrize("direction", [(1, 0), (0, 1), (1, 1), (-1, 2), (3, -1e-9)])
def test_a_stroke_that_leaves_the_picture_is_straight_up_to_its_border(far, direction):
    image = np.zeros((16, 20, 3), np.uint8)
    points = np.array([(9.3, 7.6), np.array((9.3, 7.6)) + far * np.array(direction) / np.linalg.norm(direction)])
    rest = [np.array([[0, 1]]), np.array([1.7]), np.full((1, 3), 255, np.uint8)]
    expected = reference_paint(image, points, *rest)
    paint(image, points, *rest)
    np.testing.assert_allclose(image, expected, atol=ROUNDING)


def test_later_strokes_lie_over_earlier_ones():
    image = np.zeros((9, 9, 3), np.uint8)
    colours = np.array([[255, 0, 0], [0, 255, 0]], np.uint8)
    paint(image, np.array([[4.0, 4.0]]), np.zeros((2, 2), np.int64), np.array([3.0, 2.0]), colours)
    assert image[4, 4].tolist() == [0, 255, 0]
    assert image[4, 1].tolist() == [128, 0, 0]  # 3 from the centre


def test_a_picture_larger_than_the_strokes_is_untouched_elsewhere():
    image = picture(np.random.default_rng(0), (200, 300))
    before = image.copy()
    paint(image, np.array([[150.0, 90], [160, 110]]), np.array([[0, 1]]), np.array([3.0]), np.zeros((1, 3), np.uint8))
    changed = np.argwhere((image != before).any(axis=2))
    assert changed.min(axis=0).tolist() >= [87, 147] and changed.max(axis=0).tolist() <= [113, 163]
    before[87:114, 147:164] = image[87:114, 147:164]
    np.testing.assert_array_equal(image, before)


def test_threads_paint_their_own_pictures():
    rng = np.random.default_rng(0)
    points = rng.uniform(0, 60, (6, 2))
    rest = strokes(rng, 40)
    images = [np.zeros((60, 60, 3), np.uint8) for _ in range(3)]
    threads = [threading.Thread(target=paint, args=(image, points, *rest)) for image in images]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert images[0].any() and all((image == images[0]).all() for image in images)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"ends": np.array([[0, 3]])}, ValueError, "expected 0 to 1"),
        ({"ends": np.array([[-1, 0]])}, ValueError, "ends are points -1"),
        ({"radii": np.ones(2)}, ValueError, "disagree"),
        ({"colours": np.zeros((1, 4), np.uint8)}, ValueError, "disagree"),
        ({"image": np.zeros((9, 9), np.uint8)}, ValueError, "disagree"),
        ({"image": np.zeros((9, 18, 3), np.uint8)[:, ::2]}, ValueError, "not C-contiguous"),
        ({"image": np.frombuffer(bytes(243), np.uint8).reshape(9, 9, 3)}, ValueError, "read-only"),
        ({"image": np.zeros((9, 9, 3), np.float32)}, TypeError, "expected uint8"),
        ({"points": np.zeros((2, 2), np.float32)}, TypeError, "expected uint8, float64"),
    ],
)
def test_wrong_arguments_are_named(change, error, words):
    arguments = {
        "image": np.zeros((9, 9, 3), np.uint8),
        "points": np.zeros((2, 2)),
        "ends": np.array([[0, 1]]),
        "radii": np.ones(1),
        "colours": np.zeros((1, 3), np.uint8),
    }
    with pytest.raises(error, match=words):
        paint(**(arguments | change))
