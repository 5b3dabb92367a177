"""The steps of a run: in their order, with a memory for each source."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline import PosePipeline
from pipeline.people import people_steps
from pipeline.types import Frame, People
from tests.pipeline.fakes import FakeSource, FakeStep
from tests.pipeline.people.bodies import crowd, standing

IMAGE = np.zeros((4, 4, 3), np.uint8)


class Standing(FakeStep):
    """Finds the same person in every frame."""

    def finish(self, slot):
        return [crowd(standing(100, 100)) for _ in super().finish(slot)]


def through(steps, people: People, *, source: str = "a.mp4", time_s: float = 0.0) -> People:
    for step in steps:
        people = step(Frame(IMAGE, time_s=time_s, source=source), people)
    return people


def test_sources_side_by_side_know_nothing_of_each_other():
    steps = people_steps()
    people = crowd(standing(100, 100), standing(400, 100))
    for frame in range(5):
        assert through(steps, people, source="rtsp://a", time_s=frame / 25).ids.tolist() == [1, 2]
        assert through(steps, people.pick(np.array([1])), source="0", time_s=100 + frame / 25).ids.tolist() == [1]


def test_pictures_get_no_ids():
    steps = people_steps()
    for name in ("one.jpg", "two.png"):
        assert through(steps, crowd(standing(100, 100)), source=name).ids.tolist() == [0]


def test_each_step_can_be_left_out():
    mixed = standing(100, 100)
    mixed[15, :2] = (900, 900)
    people = crowd(mixed)
    assert through(people_steps(plausible=False, ids=False), people) is people
    assert through(people_steps(plausible=False), people).keypoint_scores.all()
    assert not through(people_steps(ids=False), people).keypoint_scores.all()
    assert through(people_steps(ids=False), people).ids.tolist() == [0]


def test_nobody_below_the_least_score_is_left_by_the_steps():
    mixed = standing(100, 100)
    mixed[[13, 15], :2] = (900, 900)  # a knee and its ankle
    (score,) = through(people_steps(ids=False), crowd(mixed)).scores
    assert 0 < score < 0.8
    for least, left in ((score - 0.01, 1), (score + 0.01, 0)):
        assert len(through(people_steps(ids=False, min_score=float(least)), crowd(mixed))) == left


def test_smoothing_needs_ids():
    with pytest.raises(ValueError, match="ids"):
        people_steps(ids=False, smooth=True)
    steps = people_steps(smooth=True)
    rng = np.random.default_rng(0)
    given, got = [], []
    for frame in range(50):
        body = standing(100, 100)
        body[:, :2] += rng.normal(0, 2, (17, 2))
        given.append(crowd(body).keypoints)
        got.append(through(steps, crowd(body), time_s=frame / 25).keypoints)
    moved = [np.abs(np.diff(np.stack(frames[10:]), axis=0)).mean() for frames in (given, got)]
    assert moved[1] < 0.7 * moved[0]


@pytest.mark.parametrize("serial", [False, True])
def test_a_run_gives_ids_by_default_and_none_if_told(serial):
    results = list(PosePipeline(step=Standing()).run(FakeSource(6), serial=serial))
    assert [result.people.ids.tolist() for result in results] == [[1]] * 6
    results = list(PosePipeline(step=Standing()).run(FakeSource(6), serial=serial, steps=()))
    assert [result.people.ids.tolist() for result in results] == [[0]] * 6


def test_every_run_begins_with_id_1():
    pose = PosePipeline(step=Standing())
    for _ in range(2):
        assert [result.people.ids.tolist() for result in pose.run(FakeSource(3))] == [[1]] * 3


def test_a_step_that_fails_ends_the_run_and_names_the_frame():
    def fails(frame: Frame, people: People) -> People:
        if frame.index == 2:
            raise ZeroDivisionError("here")
        return people

    seen: list[int] = []
    with pytest.raises(Exception, match="group failed on frame 2 of fake: ZeroDivisionError: here"):
        seen.extend(result.frame.index for result in PosePipeline(step=Standing()).run(FakeSource(9), steps=[fails]))
    assert seen in ([], [0, 1])


def test_one_picture_has_no_ids():
    assert PosePipeline(step=Standing())(IMAGE).ids.tolist() == [0]
