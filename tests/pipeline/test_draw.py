"""Drawing: colours at the joints, sizes near OpenCV's, and unchanged pixels elsewhere."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from core.joints import COCO, CROWDPOSE, JOINT_SETS, Side, joint_set_of
from pipeline.draw import COLORS, OUTLINE, draw_caption, draw_people
from pipeline.labels import id_color
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


FIELDS = ("keypoints", "keypoint_scores", "scores")


def numbered(person_id: int) -> People:
    one = standing()
    return People(one.keypoints, one.keypoint_scores, one.scores, np.array([person_id]))


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


def with_opencv(picture: np.ndarray, keypoints: np.ndarray, width: float) -> np.ndarray:
    """A left shin and its joints by cv2.line and cv2.circle, with the widths that they round to."""
    a, b = np.rint((keypoints - 0.5) * 16).astype(int).tolist()
    thickness = max(1, round(width))
    light = [(3 * 255 + 2 * c) // 5 for c in COLORS["left"]]
    cv2.line(picture, a, b, OUTLINE, thickness + max(2, round(width * 0.6)), cv2.LINE_AA, 4)
    cv2.line(picture, a, b, COLORS["left"], thickness, cv2.LINE_AA, 4)
    for joint in (a, b):
        outline = round((width * 1.05 + max(1.0, width * 0.35)) * 16)
        cv2.circle(picture, joint, outline, OUTLINE, -1, cv2.LINE_AA, 4)
        cv2.circle(picture, joint, round(width * 1.05 * 16), light, -1, cv2.LINE_AA, 4)
    return picture


@pytest.mark.parametrize("height", [40, 110, 230, 340, 520, 800])
def test_limbs_and_joints_are_as_wide_as_opencvs(height):
    keypoints = np.zeros((1, 17, 2), np.float32)
    keypoints[0, 13], keypoints[0, 15] = (30.3, 30.5), (48.7, 30.5 + height)  # left knee and ankle
    scores = np.zeros((1, 17), np.float32)
    scores[0, [13, 15]] = 1
    ours = draw_people(blank(height + 60, 80), People(keypoints, scores, np.ones(1, np.float32)))
    theirs = with_opencv(blank(height + 60, 80), keypoints[0, [13, 15]], min(max(height / 75, 1.5), 9))
    touched = (ours != 128).any(axis=2).sum() / (theirs != 128).any(axis=2).sum()
    levels = np.abs(ours.astype(int) - theirs)[((ours != 128) | (theirs != 128)).any(axis=2)].mean()
    assert 0.85 < touched < 1.05  # measured: 0.88 to 1.01
    assert levels < 20  # of 255, over the pixels that either drew; measured: at most 15


@pytest.mark.parametrize(
    "odd", [np.s_[::2], np.s_[:, ::2], np.s_[::-1], np.s_[:, ::-1], np.s_[..., ::-1], np.s_[7:, 11:]]
)
def test_a_picture_of_any_memory_order_is_drawn_alike(odd):
    part = blank(400, 400)[odd]
    assert not part.flags.c_contiguous
    expected = draw_people(np.ascontiguousarray(part), numbered(3))
    assert draw_people(part, numbered(3)) is part
    np.testing.assert_array_equal(part, expected)
    assert (part != 128).any()


def test_keypoints_of_any_memory_order_are_drawn_alike():
    one = numbered(3)
    picture = draw_people(blank(), one)
    keypoints, scores = np.asfortranarray(one.keypoints), np.asfortranarray(one.keypoint_scores)
    keypoints.flags.writeable = False
    np.testing.assert_array_equal(draw_people(blank(), People(keypoints, scores, one.scores, one.ids)), picture)


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
def test_a_joint_that_is_not_finite_is_drawn_as_one_that_was_not_found(odd):
    one = numbered(3)
    keypoints, scores = one.keypoints.copy(), one.keypoint_scores.copy()
    keypoints[0, 9] = (odd, 50)
    scores[0, 9] = 0
    expected = draw_people(blank(), People(keypoints, scores, one.scores, one.ids))
    scores[0, 9] = 1
    np.testing.assert_array_equal(draw_people(blank(), People(keypoints, scores, one.scores, one.ids)), expected)
    keypoints[:] = odd
    assert (draw_people(blank(), People(keypoints, scores, one.scores, one.ids)) == 128).all()


@pytest.mark.parametrize("offset", [(-100, 0), (0, -100), (100, 0), (0, 100), (-95, 110), (400, 0)])
def test_a_person_across_a_border_is_the_cut_out_of_a_larger_picture(offset):
    one = standing()  # without a number, whose place depends on the border
    moved = People(one.keypoints + np.float32(offset), one.keypoint_scores, one.scores)
    inside = People(moved.keypoints + np.float32(300), one.keypoint_scores, one.scores)
    expected = draw_people(blank(900, 900), inside)[300:500, 300:500]
    np.testing.assert_allclose(
        draw_people(blank(), moved).astype(int), expected, rtol=0, atol=2
    )  # the sums round differently


def test_a_person_in_front_is_drawn_over_a_smaller_one():
    small, large = standing(100, 100), standing(160, 100)
    both = People(*(np.concatenate([getattr(large, name), getattr(small, name)]) for name in FIELDS))
    np.testing.assert_array_equal(draw_people(blank(), both), draw_people(draw_people(blank(), small), large))


def test_trunk_and_joints_have_the_colour_of_the_id_and_limbs_of_their_side():
    one = numbered(3)
    picture, xy = draw_people(blank(), one), one.keypoints[0]
    for joint in (9, 11, 16):
        assert picture[int(xy[joint, 1]), int(xy[joint, 0])].tolist() == list(id_color(3))
    for a, b, color in [(11, 12, id_color(3)), (7, 9, COLORS["left"]), (8, 10, COLORS["right"])]:
        x, y = (xy[a] + xy[b]) / 2
        assert picture[int(y), int(x)].tolist() == list(color)


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
