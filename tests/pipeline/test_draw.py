"""Drawing: colours at the joints, and unchanged pixels elsewhere."""

from __future__ import annotations

import numpy as np
import pytest

from core.joints import COCO, CROWDPOSE, JOINT_SETS, Side, joint_set_of
from pipeline.draw import COLORS, draw_caption, draw_people
from pipeline.types import People


def standing(height: float = 160, x: float = 100, joints: int = 17) -> People:
    """A frontal figure, in COCO's order, head at the top."""
    relative = [
        (0, 0.05), (0.03, 0.03), (-0.03, 0.03), (0.06, 0.05), (-0.06, 0.05), (0.12, 0.2), (-0.12, 0.2), (0.2, 0.35),
        (-0.2, 0.35), (0.22, 0.5), (-0.22, 0.5), (0.08, 0.52), (-0.08, 0.52), (0.1, 0.75), (-0.1, 0.75), (0.1, 0.98),
        (-0.1, 0.98),
    ]  # fmt: skip
    xy = np.array([[(x + height * a, 20 + height * b) for a, b in relative[:joints]]], np.float32)
    return People(xy, np.ones((1, joints), np.float32), np.ones(1, np.float32))


def blank(h: int = 200, w: int = 200) -> np.ndarray:
    return np.full((h, w, 3), 128, np.uint8)


def test_limbs_have_the_colour_of_their_side():
    picture = draw_people(blank(), standing())
    people = standing().keypoints[0]
    limbs: list[tuple[int, int, Side]] = [(7, 9, "left"), (8, 10, "right"), (11, 12, "middle")]
    for a, b, side in limbs:
        x, y = (people[a] + people[b]) / 2
        assert picture[int(y), int(x)].tolist() == list(COLORS[side])


def test_nobody_changes_nothing():
    assert (draw_people(blank(), People.nobody()) == 128).all()


def test_joints_that_were_not_found_are_not_drawn():
    found = standing()
    scores = found.keypoint_scores.copy()
    scores[0, 5:] = 0
    keypoints = found.keypoints.copy()
    keypoints[0, 5:] = 0
    picture = draw_people(blank(), People(keypoints, scores, found.scores))
    assert (picture[60:] == 128).all()
    assert (picture[:8, :8] == 128).all()  # (0, 0) is where a missing joint lies
    assert (picture[20:40] != 128).any()


def test_lines_grow_with_the_person():
    def painted(height: float) -> int:
        return int((draw_people(blank(900, 900), standing(height, 400)) != 128).any(axis=2).sum())

    # with the size alone the painted area would grow 8 times from 100 to 800; the width grows too
    assert painted(800) > 20 * painted(100)


def test_the_picture_is_drawn_in_place():
    picture = blank()
    assert draw_people(picture, standing()) is picture


def test_far_outside_coordinates_do_not_overflow():
    people = standing()
    keypoints = people.keypoints.copy()
    keypoints[0, 9] = (1e9, -1e9)
    keypoints[0, 10] = (-1e6, 3e4)
    picture = draw_people(blank(), People(keypoints, people.keypoint_scores, people.scores))
    assert (picture != 128).any()


def test_fourteen_joints_are_crowdpose():
    assert (draw_people(blank(), standing(joints=14)) != 128).any()


def test_a_caption_is_drawn_in_its_corner():
    picture = draw_caption(blank(), "29.9 FPS")
    assert (picture[:60] != 128).any()
    assert (picture[100:] == 128).all()


@pytest.mark.parametrize("skeleton", JOINT_SETS.values())
def test_every_joint_has_a_limb_and_every_limb_two_joints(skeleton):
    joints = set(range(len(skeleton.joints)))
    assert {joint for edge in skeleton.edges for joint in edge} == joints
    assert all(a != b and {a, b} <= joints for a, b in skeleton.edges)
    assert len({frozenset(edge) for edge in skeleton.edges}) == len(skeleton.edges)


def test_sides_are_the_persons():
    assert [COCO.side(joint) for joint in (0, 5, 6)] == ["middle", "left", "right"]
    assert [COCO.edge_side(edge) for edge in ((5, 7), (6, 8), (5, 6), (0, 1))] == ["left", "right", "middle", "left"]
    assert CROWDPOSE.edge_side((12, 13)) == "middle"


def test_an_unknown_number_of_joints_is_named():
    with pytest.raises(ValueError, match="no joint set has 5 joints"):
        joint_set_of(5)
