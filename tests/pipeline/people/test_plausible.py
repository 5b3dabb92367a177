"""Impossible parts of skeletons are removed, possible ones are not changed."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.limbs import impossible_limbs
from pipeline.people.plausible import drop_impossible
from pipeline.types import People
from samples.make_crowd import HERE
from tests.pipeline.people.bodies import crowd, standing

UPPER = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
LOWER = [11, 12, 13, 14, 15, 16]


def same(a: People, b: People) -> bool:
    return all(np.array_equal(getattr(a, n), getattr(b, n)) for n in ("keypoints", "keypoint_scores", "scores", "ids"))


def test_whole_people_stay_to_the_last_bit():
    people = crowd(standing(100, 100), standing(300, 90, height=120), standing(500, 20, height=400), ids=[3, 1, 2])
    assert drop_impossible(people) is people


def test_of_two_people_read_as_one_the_stronger_part_stays():
    upper, lower = standing(100, 100, score=0.6), standing(700, 130)
    mixed = upper.copy()
    mixed[LOWER] = lower[LOWER]
    (rest,) = [drop_impossible(crowd(mixed, ids=[7]))]
    assert np.flatnonzero(rest.keypoint_scores[0]).tolist() == UPPER  # 11 joints of 0.6 outweigh 6 of 0.8
    assert np.array_equal(rest.keypoints[0, UPPER], mixed[UPPER, :2].astype(np.float32))
    assert not rest.keypoints[0, LOWER].any()
    assert rest.scores[0] == pytest.approx(mixed[:, 2].mean() * 6.6 / (6.6 + 4.8))
    assert rest.ids.tolist() == [7]


@pytest.mark.parametrize("min_score", [0.3, 0.5])
def test_who_falls_below_the_least_score_goes_too(min_score):
    """The decode has compared the score of the whole skeleton, 0.67; what stays of it has 0.39."""
    upper, lower = standing(100, 100, score=0.6), standing(700, 130)
    mixed = upper.copy()
    mixed[LOWER] = lower[LOWER]
    weak = standing(400, 100, score=0.2)  # whole: the decode's own business
    rest = drop_impossible(crowd(mixed, weak, ids=[7, 8]), min_score=min_score)
    assert rest.ids.tolist() == ([7, 8] if min_score < 0.35 else [8])


def test_one_stray_wrist_goes_alone():
    person = standing(100, 100)
    person[10, :2] = (600, 400)
    rest = drop_impossible(crowd(person, standing(400, 100)))
    assert np.flatnonzero(rest.keypoint_scores[0] == 0).tolist() == [10]
    assert (rest.keypoint_scores[1] > 0).all()


def test_a_missing_elbow_does_not_cost_the_hand():
    """If the elbow was not found, the wrist is compared with the shoulder."""
    person = standing(100, 100)
    person[8] = 0
    person[15, :2] = (700, 0)  # something else is wrong with this person
    rest = drop_impossible(crowd(person))
    assert np.flatnonzero(rest.keypoint_scores[0] == 0).tolist() == [8, 15]


def test_what_is_left_of_a_person_may_be_nobody():
    """An arm, a leg and half a face of different people: no part is large enough for a body."""
    parts = standing(100, 100)
    parts[[3, 4]] = 0
    for number, limb in enumerate(([5, 7, 9], [6, 8, 10], [11, 13, 15], [12, 14, 16])):
        parts[limb, :2] += (900 * (number + 1), 700 * (number % 2))
    people = crowd(standing(100, 100), parts, ids=[4, 5])
    assert drop_impossible(people).ids.tolist() == [4]


def test_nobody_and_unnamed_joint_sets_pass():
    assert len(drop_impossible(People.nobody())) == 0
    five = People(np.full((1, 5, 2), 3, np.float32), np.ones((1, 5), np.float32), np.ones(1, np.float32))
    assert drop_impossible(five) is five


def test_crowdposes_joints_are_known_by_name():
    coco = standing(100, 100)
    joints = np.concatenate([coco[5:], [[100, 104, 0.8], [100, 132, 0.8]]])  # head, neck
    order = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13]
    whole = crowd(joints[order])
    assert drop_impossible(whole) is whole
    joints[3, :2] = (700, 0)  # right elbow: the hand goes with it
    rest = drop_impossible(crowd(joints))
    assert np.flatnonzero(rest.keypoint_scores[0] == 0).tolist() == [3, 5]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_it_only_takes_away_and_does_not_depend_on_the_others_order(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    bodies = [standing(*rng.uniform(0, 900, 2), height=rng.uniform(40, 400)) for _ in range(rng.integers(1, 7))]
    mixed = np.stack(bodies)
    for joint in rng.permutation(17)[: rng.integers(0, 10)]:  # joints change hands
        mixed[:, joint] = mixed[rng.permutation(len(mixed)), joint]
    mixed[rng.random(mixed.shape[:2]) < 0.15] = 0
    people = crowd(*mixed, ids=list(range(1, len(mixed) + 1)))
    rest = drop_impossible(people)
    for person, number in enumerate(rest.ids - 1):
        kept = rest.keypoint_scores[person] > 0
        assert np.array_equal(rest.keypoints[person][kept], people.keypoints[number][kept])
        assert np.array_equal(rest.keypoint_scores[person][kept], people.keypoint_scores[number][kept])
        assert rest.scores[person] <= people.scores[number] * (1 + 1e-6)
    order = rng.permutation(len(people))
    again = drop_impossible(people.pick(order))
    assert same(again.pick(np.argsort(again.ids)), rest)
    moved = People(people.keypoints + np.float32(64), people.keypoint_scores, people.scores, people.ids)
    assert drop_impossible(moved).ids.tolist() == rest.ids.tolist()


def test_the_drawn_clips_true_people_stay():
    """Real proportions from all directions: of 1,159 people less than 1 % lose a joint."""
    truth = json.loads((HERE / "crowd.json").read_text())
    joints = np.array([a["keypoints"] for a in truth["annotations"] if a["num_keypoints"] >= 5], float)
    joints = joints.reshape(-1, 17, 3)
    joints[..., 2] = joints[..., 2] > 0
    people = crowd(*joints, ids=list(range(1, len(joints) + 1)))
    rest = drop_impossible(people)
    assert len(rest) == len(people)
    changed = ((rest.keypoint_scores > 0) != (people.keypoint_scores > 0)).any(axis=1)
    assert changed.mean() < 0.01


def test_the_measure_finds_next_to_nothing_afterwards():
    rng = np.random.default_rng(5)
    before = after = left = 0
    for _ in range(20):
        bodies = np.stack([standing(*rng.uniform(0, 900, 2), height=rng.uniform(60, 200)) for _ in range(8)])
        for joint in rng.permutation(17)[:5]:
            bodies[:, joint] = bodies[rng.permutation(8), joint]
        people = crowd(*bodies)
        before += int(impossible_limbs(people).sum())
        rest = drop_impossible(people)
        after, left = after + int(impossible_limbs(rest).sum()), left + len(rest)
    assert before > 50
    assert left > 100
    assert after <= 0.05 * left
