"""Ids follow people through gaps, crossings and dropped frames, and end with a film."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.people import Tracker
from pipeline.types import People
from tests.pipeline.people.bodies import crowd, standing

FPS = 25


def ids_of(tracker: Tracker, people: People, time_s: float) -> list[int]:
    return [int(number) for number in tracker.update(people, time_s).ids]


def walking_pose(x: float, speed: float, time_s: float, *, height: float = 200.0, top: float = 100.0) -> np.ndarray:
    """A person who walks at `speed` pixels per second, with swinging legs."""
    body = standing(x + speed * time_s, top, height=height)
    body[13:17, 0] += 0.08 * height * np.sin(11 * time_s) * np.array([1, -1, 1.5, -1.5])
    return body


def test_people_keep_their_ids_and_nothing_else_changes():
    tracker = Tracker()
    for frame in range(20):
        people = crowd(walking_pose(100, 80, frame / FPS), walking_pose(500, -60, frame / FPS))
        tracked = tracker.update(people, frame / FPS)
        assert tracked.ids.tolist() == [1, 2]
        assert tracked.keypoints is people.keypoints
        assert tracked.scores is people.scores


def test_two_who_cross_keep_their_ids_although_one_hides_the_other():
    tracker = Tracker()
    seen = []
    for frame in range(75):
        time_s = frame / FPS
        bodies = [walking_pose(100, 150, time_s), walking_pose(500, -150, time_s, height=190)]
        if abs(bodies[0][0, 0] - bodies[1][0, 0]) < 60:  # the far one is covered
            bodies.pop()
        seen.append(ids_of(tracker, crowd(*bodies), time_s))
    assert seen[0] == seen[-1] == [1, 2]
    assert [1] in seen
    assert {tuple(ids) for ids in seen} == {(1, 2), (1,)}


@pytest.mark.parametrize(("away_s", "same"), [(0.3, True), (0.7, True), (2.0, False)])
def test_who_comes_back_within_a_second_is_known_again(away_s, same):
    tracker = Tracker()
    for frame in range(15):
        assert ids_of(tracker, crowd(walking_pose(100, 100, frame / FPS)), frame / FPS) == [1]
    back_s = 14 / FPS + away_s
    for time_s in np.arange(15 / FPS, back_s, 1 / FPS):
        assert ids_of(tracker, People.nobody(), time_s) == []
    assert ids_of(tracker, crowd(walking_pose(100, 100, back_s)), back_s) == [1 if same else 2]


@pytest.mark.parametrize("every", [1, 2, 5])
def test_dropped_frames_cost_no_id(every):
    """Tracking depends on seconds, not on frames: three people with all, half or a fifth of 25 frames per second."""
    tracker = Tracker()
    for frame in range(0, 100, every):
        time_s = frame / FPS
        people = crowd(
            walking_pose(50, 120, time_s),
            walking_pose(700, -110, time_s, top=180),
            walking_pose(400, 0, time_s, top=20),
        )
        assert ids_of(tracker, people, time_s) == [1, 3, 2]  # the strongest first, then from left to right


def test_after_a_jump_to_elsewhere_all_are_strangers():
    """After a cut in a film there are other people at other positions."""
    tracker = Tracker()
    for frame in range(10):
        ids_of(tracker, crowd(standing(100, 100), standing(400, 100)), frame / FPS)
    after = ids_of(tracker, crowd(standing(250, 40, height=400), standing(620, 100)), 10 / FPS)
    assert after == [3, 4]


def test_where_time_runs_back_all_are_strangers_with_new_ids():
    """A source that loops, or is started again with the same name."""
    tracker = Tracker()
    for frame in range(10):
        assert ids_of(tracker, crowd(standing(100, 100), standing(400, 100)), frame / FPS) == [1, 2]
    for frame in range(10):
        assert ids_of(tracker, crowd(standing(100, 100), standing(400, 100)), frame / FPS) == [3, 4]


def test_to_forget_is_to_take_all_for_strangers():
    tracker = Tracker()
    assert ids_of(tracker, crowd(standing(100, 100)), 0.0) == [1]
    tracker.reset()
    assert ids_of(tracker, crowd(standing(100, 100)), 0.04) == [2]


def test_a_repeated_timestamp_is_no_harm():
    tracker = Tracker()
    assert [ids_of(tracker, crowd(standing(100 + i, 100)), 1.0) for i in range(4)] == [[1]] * 4


def test_somebody_weak_gets_an_id_when_seen_again():
    tracker = Tracker()
    assert ids_of(tracker, crowd(standing(100, 100, score=0.3)), 0.0) == [0]
    assert ids_of(tracker, crowd(standing(100, 100, score=0.3)), 0.04) == [1]
    assert ids_of(tracker, crowd(standing(100, 100, score=0.3), standing(500, 100)), 0.08) == [1, 2]


def test_another_joint_set_begins_anew():
    tracker = Tracker()
    assert ids_of(tracker, crowd(standing(100, 100)), 0.0) == [1]
    assert ids_of(tracker, crowd(standing(100, 100)[:14]), 0.04) == [2]
    assert ids_of(tracker, People.nobody(14), 0.08) == []


def test_only_a_positive_memory_is_accepted():
    with pytest.raises(ValueError, match="lost_s is 0"):
        Tracker(lost_s=0)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_ids_are_unique_never_reused_and_independent_of_order(seed):
    """People appear, disappear, jump and lose joints at random times; a second tracker gets them shuffled."""
    rng = np.random.default_rng(seed)
    one, other = Tracker(), Tracker()
    last_seen: dict[int, float] = {}
    highest, time_s = 0, 0.0
    places = rng.uniform(0, 800, (8, 2))
    for _ in range(25):
        time_s += float(rng.choice([0.0, 0.02, 0.04, 0.3, 1.5], p=[0.05, 0.1, 0.65, 0.15, 0.05]))
        places += rng.normal(0, 12, places.shape)
        there = rng.random(8) < 0.8
        bodies = np.stack([standing(*place, score=rng.uniform(0.2, 1)) for place in places])[there]
        bodies[rng.random(bodies.shape[:2]) < 0.1] = 0
        people = crowd(*bodies)
        ids = one.update(people, time_s).ids  # People itself refuses an id twice
        fresh = sorted(set(ids.tolist()) - set(last_seen) - {0})
        assert all(number > highest for number in fresh)
        highest = max([highest, *fresh])
        for number in set(ids.tolist()) - {0}:
            assert time_s - last_seen.get(number, time_s) <= 0.8 + 1e-9
            last_seen[number] = time_s
        order = rng.permutation(len(people))
        assert other.update(people.pick(order), time_s).ids.tolist() == ids[order].tolist()
