"""What counts as a skeleton that no body could have."""

from __future__ import annotations

import numpy as np

from evaluation.limbs import impossible_limbs
from pipeline.types import People
from tests.pipeline.people.bodies import crowd, standing


def test_a_standing_person_is_possible():
    assert impossible_limbs(crowd(standing(100, 100))).tolist() == [False]


def test_a_limb_is_measured_against_the_own_torso():
    """Torso 60 px: a forearm of 126 px is the longest that is let pass."""
    just, beyond = standing(100, 100), standing(400, 100)
    elbow, wrist = 7, 9
    just[wrist, :2] = just[elbow, :2] + (125.9, 0)
    beyond[wrist, :2] = beyond[elbow, :2] + (126.1, 0)
    assert impossible_limbs(crowd(just, beyond)).tolist() == [False, True]


def test_who_has_no_torso_is_measured_by_the_frames_median():
    armless = standing(100, 100)
    armless[11:13] = 0  # hips
    armless[9, :2] = armless[7, :2] + (200, 0)
    assert impossible_limbs(crowd(armless, standing(300, 100))).tolist() == [True, False]
    armless[9, :2] = armless[7, :2] + (100, 0)
    assert impossible_limbs(crowd(armless, standing(300, 100))).tolist() == [False, False]


def test_a_torso_six_times_the_median_is_impossible():
    people = crowd(standing(100, 100), standing(200, 100), standing(300, 100, height=200 * 6.2))
    assert impossible_limbs(people).tolist() == [False, False, True]


def test_a_missing_joint_makes_no_limb():
    person = standing(1000, 1000)
    person[9] = 0  # (0, 0) is far away
    assert impossible_limbs(crowd(person)).tolist() == [False]
    assert impossible_limbs(People.nobody()).tolist() == []
    assert not np.any(impossible_limbs(crowd(np.zeros((17, 3)))))
