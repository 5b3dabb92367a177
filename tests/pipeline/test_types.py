"""The values that People and Frame accept and reject."""

from __future__ import annotations

import numpy as np
import pytest

from engine.device import Rows
from kernels.colour import Colour
from pipeline.types import Frame, Layout, People
from tests.pipeline.people.bodies import crowd, standing


def test_ids_are_none_unless_given():
    people = crowd(standing(100, 100), standing(200, 100))
    assert people.ids.dtype == np.int64
    assert people.ids.tolist() == [0, 0]
    assert People.nobody().ids.shape == (0,)


@pytest.mark.parametrize(
    ("ids", "complaint"),
    [
        (np.array([1, 1]), "each once"),
        (np.array([1, -2]), "each once"),
        (np.array([1]), r"expected int64 \(2,\)"),
        (np.array([1, 2], np.int32), "expected int64"),
        (np.array([1.0, 2.0]), "expected int64"),
    ],
)
def test_wrong_ids_are_refused(ids, complaint):
    two = crowd(standing(100, 100), standing(200, 100))
    with pytest.raises(ValueError, match=complaint):
        People(two.keypoints, two.keypoint_scores, two.scores, ids)


def test_several_may_have_none():
    two = crowd(standing(100, 100), standing(200, 100), standing(300, 100), ids=[0, 4, 0])
    assert two.ids.tolist() == [0, 4, 0]


def test_picked_people_keep_all_that_is_theirs():
    people = crowd(standing(100, 100, score=0.5), standing(200, 100, score=0.7), standing(300, 100), ids=[5, 3, 9])
    for which, expected in ((np.array([True, False, True]), [5, 9]), (np.array([2, 0]), [9, 5])):
        picked = people.pick(which)
        assert picked.ids.tolist() == expected
        for person, number in zip(picked.ids, range(len(picked)), strict=True):
            before = people.ids.tolist().index(person)
            assert np.array_equal(picked.keypoints[number], people.keypoints[before])
            assert picked.scores[number] == people.scores[before]


class OnDevice:
    """A Surface whose copy is grey."""

    wh, colour = (8, 6), Colour("bt709")
    luma, chroma = Rows(1, 8, 8, 6), Rows(2, 8, 8, 3)

    def to_host(self):
        return np.full((6, 8, 3), 99, np.uint8)


def test_a_frame_on_the_device_has_a_size_and_an_image_as_any_other():
    frame = Frame(OnDevice(), 3)
    assert (frame.wh, frame.layout) == ((8, 6), Layout((8, 6), Colour("bt709")))
    assert (frame.image == 99).all()
    host = Frame(frame.image)
    assert (host.wh, host.layout) == ((8, 6), Layout((8, 6), None))
    assert host.picture is host.image


@pytest.mark.parametrize("wrong", [None, np.zeros((4, 4)), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)])
def test_what_is_no_picture_is_refused(wrong):
    with pytest.raises(ValueError, match="frame is"):
        Frame(wrong)
