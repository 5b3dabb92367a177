"""Still joints are held, moving ones followed, and nobody inherits another's past."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.people import Smoother
from pipeline.types import People
from tests.pipeline.people.bodies import crowd, standing

FPS = 25


def noisy(rng: np.random.Generator, x: float = 100.0) -> np.ndarray:
    body = standing(x, 100)
    body[:, :2] += rng.normal(0, 2, (17, 2))
    return body


def raised(pixels: float) -> np.ndarray:
    """Somebody at (100, 100) whose left wrist is that much higher."""
    body = standing(100, 100)
    body[9, 1] -= pixels
    return body


def test_a_still_person_is_held():
    rng, smoother = np.random.default_rng(1), Smoother()
    found = [crowd(noisy(rng), ids=[1]) for _ in range(75)]
    smooth = [smoother.update(people, frame / FPS).keypoints for frame, people in enumerate(found)]
    jitter = [np.abs(np.diff(np.stack(xy)[25:], axis=0)).mean() for xy in ([p.keypoints for p in found], smooth)]
    assert jitter[1] < 0.7 * jitter[0]
    assert np.abs(np.mean(smooth[25:], axis=0) - standing(100, 100)[:, :2]).max() < 1.5


def test_the_same_motion_is_smoothed_alike_near_and_far():
    """Speed counts in body sizes: ten times as large is ten times as far, and nothing else."""
    rng = np.random.default_rng(2)
    near, far = Smoother(), Smoother()
    for frame in range(30):
        body = noisy(rng, 100 + 6 * frame)
        large = body * [10, 10, 1]
        a = near.update(crowd(body, ids=[1]), frame / FPS).keypoints
        b = far.update(crowd(large, ids=[1]), frame / FPS).keypoints
        assert b == pytest.approx(10 * a, rel=1e-4, abs=0.05)


def test_a_walker_does_not_lag():
    """All joints move alike: the body's motion carries them on, however much they are smoothed."""
    smoother = Smoother(tolerance=10)
    for frame in range(50):
        body = standing(100 + 5 * frame, 100)
        shown = smoother.update(crowd(body, ids=[1]), frame / FPS).keypoints[0]
        assert np.abs(shown - body[:, :2]).max() < 1e-3


def test_a_jump_of_one_frame_is_not_shown():
    smoother = Smoother()
    for frame in range(10):
        smoother.update(crowd(standing(100, 100), ids=[1]), frame / FPS)
    wrist = smoother.update(crowd(raised(80), ids=[1]), 10 / FPS).keypoints[0, 9]
    assert wrist == pytest.approx(standing(100, 100)[9, :2], abs=0.01)
    wrist = smoother.update(crowd(standing(100, 100), ids=[1]), 11 / FPS).keypoints[0, 9]
    assert wrist == pytest.approx(standing(100, 100)[9, :2], abs=0.01)


def test_a_jump_that_lasts_is_followed_in_the_second_frame():
    smoother = Smoother()
    for frame in range(10):
        smoother.update(crowd(standing(100, 100), ids=[1]), frame / FPS)
    smoother.update(crowd(raised(80), ids=[1]), 10 / FPS)
    wrist = smoother.update(crowd(raised(80), ids=[1]), 11 / FPS).keypoints[0, 9]
    assert wrist[1] == pytest.approx(standing(100, 100)[9, 1] - 80, abs=20)


def test_a_doubtful_joint_is_held_more():
    shown = []
    for score in (1.0, 0.2):
        smoother, body = Smoother(), raised(5)
        smoother.update(crowd(standing(100, 100), ids=[1]), 0.0)
        body[9, 2] = score
        shown.append(smoother.update(crowd(body, ids=[1]), 1 / FPS).keypoints[0, 9, 1])
    assert shown[0] < shown[1] - 0.5


def test_who_has_no_id_passes_unchanged():
    smoother, rng = Smoother(), np.random.default_rng(3)
    for frame in range(5):
        people = crowd(noisy(rng), noisy(rng, 500), ids=[0, 4])
        smooth = smoother.update(people, frame / FPS)
        assert np.array_equal(smooth.keypoints[0], people.keypoints[0])
        assert np.array_equal(smooth.keypoints[1], people.keypoints[1]) == (frame == 0)
        assert smooth.ids.tolist() == [0, 4]
        assert np.array_equal(smooth.scores, people.scores)


def test_a_new_id_starts_without_a_past():
    """The same place, another person: nothing of the one before."""
    smoother = Smoother()
    smoother.update(crowd(standing(100, 100), ids=[1]), 0.0)
    moved = crowd(raised(2), ids=[2])
    assert np.array_equal(smoother.update(moved, 0.04).keypoints, moved.keypoints)
    same = crowd(raised(2), ids=[1])
    assert not np.array_equal(smoother.update(same, 0.08).keypoints, same.keypoints)


@pytest.mark.parametrize(("time_s", "remembered"), [(0.4, True), (1.2, False), (-1.0, False)])
def test_a_gap_or_time_that_runs_back_ends_the_past(time_s, remembered):
    smoother = Smoother()
    smoother.update(crowd(standing(100, 100), ids=[1]), 0.0)
    moved = crowd(raised(2), ids=[1])
    assert np.array_equal(smoother.update(moved, time_s).keypoints, moved.keypoints) != remembered


def test_missing_joints_stay_missing_and_come_back_fresh():
    smoother = Smoother()
    whole, lost = standing(100, 100), standing(100, 100)
    lost[9] = 0
    smoother.update(crowd(whole, ids=[1]), 0.0)
    for frame in range(1, 20):
        smooth = smoother.update(crowd(lost, ids=[1]), frame / FPS)
        assert smooth.keypoint_scores[0, 9] == 0
        assert not smooth.keypoints[0, 9].any()
    whole[9, :2] += 30
    assert smoother.update(crowd(whole, ids=[1]), 20 / FPS).keypoints[0, 9] == pytest.approx(whole[9, :2])


def test_people_may_change_places():
    """A person's past is found by id, not by row."""
    one, other = Smoother(), Smoother()
    rng = np.random.default_rng(4)
    for frame in range(10):
        bodies = [noisy(rng), noisy(rng, 400), noisy(rng, 700)]
        a = one.update(crowd(*bodies, ids=[5, 2, 9]), frame / FPS)
        order = rng.permutation(3)
        b = other.update(crowd(*bodies, ids=[5, 2, 9]).pick(order), frame / FPS)
        assert np.array_equal(b.keypoints, a.keypoints[order])


def test_nobody_and_other_joint_sets_pass():
    smoother = Smoother()
    assert len(smoother.update(People.nobody(), 0.0)) == 0
    assert len(smoother.update(crowd(standing(0, 0)[:14], ids=[1]), 0.1)) == 1
    assert len(smoother.update(crowd(standing(0, 0), ids=[1]), 0.2)) == 1


@pytest.mark.parametrize("wrong", [{"tolerance": 0}, {"jump": -1}, {"gap_s": 0}])
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ValueError, match="must be positive"):
        Smoother(**wrong)
