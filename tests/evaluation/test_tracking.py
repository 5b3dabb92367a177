"""Scores of ids, by cases one can count, and the figures of our tracker on recorded people."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.recorded import clip_truth, recorded_people
from benchmarks.tracking import GreedyOks, score
from evaluation.tracking import TruePeople, score_tracks, true_people
from pipeline.people import Tracker, drop_impossible
from tests.pipeline.people.bodies import crowd, standing


def true(*places: float) -> TruePeople:
    bodies = np.stack([standing(x, 100, score=2) for x in places])
    return TruePeople(np.arange(1, len(places) + 1), bodies, np.full(len(places), 10_000.0))


def test_perfect_ids_score_1_whatever_their_numbers():
    found = [crowd(standing(400, 100), standing(100, 100), ids=[7, 5])] * 4
    scores = score_tracks([true(100, 400)] * 4, found)
    assert (scores.idf1, scores.switches) == (1.0, 0)
    assert scores.hota == pytest.approx(1.0)


def test_a_switch_is_counted_and_costs_idf1():
    before, after = (crowd(standing(100, 100), standing(400, 100), ids=ids) for ids in ([1, 2], [2, 1]))
    scores = score_tracks([true(100, 400)] * 4, [before, before, after, after])
    assert scores.switches == 2
    assert scores.idf1 == pytest.approx(0.5)


def test_people_without_an_id_are_left_out():
    found = [crowd(standing(100, 100), standing(400, 100), standing(700, 100), ids=[1, 0, 0])] * 2
    scores = score_tracks([true(100, 400)] * 2, found)
    assert scores.idf1 == pytest.approx(2 * 2 / (2 + 4))  # one of two people, no false alarm


def test_oks_is_cocos():
    one = true(100)
    moved = standing(100, 100)
    moved[:, 0] += 10
    sigmas = np.array([0.026, 0.025, 0.025, 0.035, 0.035, *np.repeat([0.079, 0.072, 0.062, 0.107, 0.087, 0.089], 2)])
    expected = np.exp(-100 / (2 * (2 * sigmas) ** 2 * 10_000)).mean()
    assert one.oks(crowd(moved, standing(100, 100)))[0] == pytest.approx([expected, 1.0], abs=1e-5)


def test_annotations_must_say_who_is_who():
    annotations = clip_truth()
    assert [len(one.track_ids) for one in true_people(annotations)][:2] == [4, 4]
    del annotations.dataset["annotations"][3]["track_id"]
    with pytest.raises(ValueError, match="no track_id"):
        true_people(annotations)


def test_our_tracker_keeps_its_figures_on_recorded_people():
    """One of five ways to keep a fifth of the frames, and all of them: python -m benchmarks.tracking has the table."""
    people, truth = [drop_impossible(one) for one in recorded_people()], true_people(clip_truth())
    idf1, hota, switches = score(Tracker, people, truth, 1)
    greedy = score(lambda: GreedyOks(0.3), people, truth, 1)
    assert idf1 >= 75  # 89.6
    assert hota > greedy[1] + 15  # 75.9 and 53.5
    assert switches <= greedy[2] / 3  # 7 and 22
    assert score(Tracker, people, truth, 5)[0] >= 75  # 88.7
