"""The synthetic people: anatomy, walking, and labels that agree with the pixels."""

from __future__ import annotations

import math

import numpy as np
import pytest

from samples import body, draw_picture
from samples.outfit import random_outfit
from samples.paint import NOTHING, Canvas
from samples.people import draw_crowd, label_crowd
from samples.person import PARTS, Person, draw_person


def person(pose: body.Pose, *, x=160.0, foot=300.0, height=280.0, seed=0):
    return Person(body.figure(pose), random_outfit(np.random.default_rng(seed), height), (x, foot), height)


def blank(width=320, height=320):
    return Canvas(np.zeros((height, width, 3), np.float32), np.full((height, width), NOTHING, np.int32))


def labelled(*people: Person):
    canvas = blank()
    return label_crowd(canvas, people, draw_crowd(canvas, people))


def test_a_standing_figure_is_as_tall_as_its_height_says():
    points = body.figure(body.Pose()).points
    assert points[:, 1].max() == pytest.approx(0, abs=0.03)
    assert points[body.HEAD_TOP, 1] == pytest.approx(-1, abs=0.03)


def test_facing_the_camera_the_left_side_is_on_the_right_of_the_picture():
    points = body.figure(body.Pose(yaw=0.0)).points
    behind = body.figure(body.Pose(yaw=math.pi)).points
    for left, right in (body.SHOULDERS, body.HIPS, body.EYES, body.ANKLES):
        assert points[left, 0] > points[right, 0]
        assert behind[left, 0] < behind[right, 0]


@pytest.mark.parametrize("phase", np.linspace(0, 6, 5))
def test_limbs_keep_their_lengths_while_walking(phase):
    points = body.figure(body.gait(phase, yaw=1.0)).points
    for side in (body.LEFT, body.RIGHT):
        thigh = np.linalg.norm(points[body.HIPS[side]] - points[body.KNEES[side]])
        upper_arm = np.linalg.norm(points[body.SHOULDERS[side]] - points[body.ELBOWS[side]])
        assert thigh == pytest.approx(body.THIGH)
        assert upper_arm == pytest.approx(body.UPPER_ARM)


def test_the_foot_on_the_ground_neither_slides_nor_floats():
    phases = np.linspace(0, 2 * math.pi, 121)
    points = np.stack([body.figure(body.gait(p, yaw=0.0)).points for p in phases])
    walked = np.array([body.stride(p) for p in phases])
    standing = np.array([body.standing_side(p) for p in (phases[:-1] + phases[1:]) / 2])
    world = points[:, list(body.ANKLES), 2] + walked[:, None]
    slid = np.abs(np.diff(world, axis=0)[np.arange(120), standing])
    soles = np.stack([points[:-1, [body.HEELS[s], body.TOES[s]], 1].max(axis=1) for s in (0, 1)], axis=1)
    assert 0.7 < body.stride_length() < 1.1
    assert slid.max() < 0.002
    assert soles[np.arange(120), standing].min() > -0.04  # the rounded sole reaches 0.017 below these points


def test_faces_that_look_away_have_no_labelled_features():
    front, _ = labelled(person(body.Pose(yaw=0.0)))
    back, _ = labelled(person(body.Pose(yaw=math.pi)))
    assert (front[0, :3, 2] > 0).all()
    assert (back[0, :3, 2] == 0).all()
    assert (front[0, 5:, 2] == 2).all()


def test_a_person_behind_another_is_occluded_and_a_wholly_hidden_one_unlabelled():
    far = person(body.Pose(), x=150, foot=290, height=240)
    near = person(body.Pose(), x=190, foot=310, height=300, seed=1)
    keypoints, areas = labelled(far, near)
    left_wrist, right_wrist = body.WRISTS
    assert keypoints[0, left_wrist, 2] == 1
    assert keypoints[0, right_wrist, 2] == 2
    assert areas[0] < areas[1]
    hidden, _ = labelled(person(body.Pose(), x=190, foot=150, height=60), near)
    assert not hidden[0].any()


def test_joints_out_of_the_picture_are_zero():
    keypoints, _ = labelled(person(body.Pose(), foot=420, height=300))
    assert not keypoints[0, [*body.KNEES, *body.ANKLES]].any()
    assert (keypoints[0, [*body.SHOULDERS], 2] == 2).all()


def test_visible_joints_lie_on_their_person():
    canvas = blank()
    one = person(body.gait(1.0, yaw=0.8))
    draw_person(canvas, one, 0)
    keypoints, areas = label_crowd(canvas, [one], np.ones(1))
    assert areas[0] == (canvas.owner // PARTS == 0).sum()
    for x, y, v in keypoints[0]:
        if v == 2:
            assert (canvas.owner[max(0, int(y) - 1) : int(y) + 2, int(x) - 1 : int(x) + 2] != NOTHING).any()


@pytest.mark.parametrize("size_wh", [(320, 320), (384, 256), (128, 160)])
def test_pictures_have_the_asked_size_and_sane_labels(size_wh):
    width, height = size_wh
    for seed in range(6):
        image, keypoints, areas = draw_picture(np.random.default_rng(seed), size_wh, seed % 4)
        assert image.shape == (height, width, 3)
        assert image.dtype == np.uint8
        assert image.std() > 5
        assert keypoints.shape == (seed % 4, 17, 3)
        assert areas.shape == (seed % 4,)
        assert keypoints.dtype == areas.dtype == np.float32
        assert np.isin(keypoints[..., 2], (0, 1, 2)).all()
        shown = keypoints[keypoints[..., 2] > 0]
        assert ((shown[:, :2] >= 0) & (shown[:, :2] < [width, height])).all()
        assert (keypoints[keypoints[..., 2] == 0] == 0).all()


def test_the_same_seed_gives_the_same_picture():
    first = draw_picture(np.random.default_rng(5), (160, 160), 3)
    second = draw_picture(np.random.default_rng(5), (160, 160), 3)
    assert all(np.array_equal(first[i], second[i]) for i in range(3))


def test_most_people_of_a_picture_show_most_of_their_joints():
    shown = [
        (person[:, 2] > 0).sum()
        for seed in range(20)
        for person in draw_picture(np.random.default_rng(seed), (256, 256), 3)[1]
    ]
    assert np.mean(shown) > 9
