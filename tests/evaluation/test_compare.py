"""Two sets of results: who matches whom, and how far apart they are."""

from __future__ import annotations

import math

import numpy as np
import pytest

from evaluation import compare_results
from tests.evaluation.oracle import crowd


def results(people, image_id=1):
    flat = [np.column_stack([p[:, :2], np.ones(len(p))]) for p in people]
    return [{"image_id": image_id, "score": 0.5, "keypoints": p.ravel().tolist()} for p in flat]


def test_the_same_people_in_another_order_are_zero_apart():
    people = crowd(np.random.default_rng(0), (400, 300))
    found = compare_results(results(people), results(people[::-1]))
    assert (found.people, found.matched, found.mean) == ((3, 3), 3, 0.0)
    assert len(found.distances) == 3 * 17


def test_a_known_shift_is_the_distance():
    people = crowd(np.random.default_rng(0), (400, 300))
    moved = people + np.array([0.3, -0.4, 0])
    found = compare_results(results(people), results(moved))
    assert found.mean == pytest.approx(0.5)
    assert found.percentile(100) == pytest.approx(0.5)


def test_people_of_other_images_or_far_away_do_not_match():
    people = crowd(np.random.default_rng(0), (400, 300))
    assert compare_results(results(people), results(people, image_id=2)).matched == 0
    found = compare_results(results(people), results(people + np.array([900, 0, 0])))
    assert found.matched == 0
    assert math.isnan(found.mean)


def test_joints_that_only_one_has_are_left_out():
    people = crowd(np.random.default_rng(0), (400, 300))[:1]
    half = results(people)
    half[0]["keypoints"][0:3] = [0.0, 0.0, 0.0]
    found = compare_results(results(people), half)
    assert (found.matched, len(found.distances), found.mean) == (1, 16, 0.0)


def test_other_joint_sets_are_refused():
    with pytest.raises(ValueError, match=r"\[14, 17\] joints"):
        compare_results(results(np.zeros((1, 17, 3))), results(np.zeros((1, 14, 3))))
