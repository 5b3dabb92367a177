"""Pixels, keypoints and ignored regions move together."""

from __future__ import annotations

import numpy as np
import pytest

from core.joints import COCO
from train.augment import PLAIN, Augmentation, crop
from train.pictures import Labels
from train.targets import loss_mask

SIDE = 96
COLOURS = np.random.default_rng(0).permutation(np.arange(40, 250, 12))[:17]  # one grey for each joint


def picture():
    """17 grey squares on black, with joints at their centres; OpenCV's pixel centres are at integers."""
    image = np.zeros((120, 160, 3), np.uint8)
    keypoints = np.zeros((1, 17, 3), np.float32)
    for joint, colour in enumerate(COLOURS):
        x, y = 30 + 25 * (joint % 5), 22 + 25 * (joint // 5)
        image[y - 4 : y + 5, x - 4 : x + 5] = colour
        keypoints[0, joint] = x, y, 2
    return image, Labels(keypoints, np.array([80], np.float32), np.ones(17, bool))


def take(options, seed=0, labels=None, side=SIDE):
    image, own = picture()
    rng = np.random.default_rng(seed)
    return crop(image, labels or own, side, short_side=side, flip_order=COCO.flip, options=options, rng=rng)[:2]


@pytest.mark.parametrize("seed", range(12))
def test_keypoints_stay_on_their_pixels(seed):
    image, labels = take(Augmentation(flip=0, colour=0, blur=0), seed)
    keypoints = labels.keypoints[0]
    inside = [
        j for j in range(17) if keypoints[j, 2] > 0 and keypoints[j, :2].min() > 2 and keypoints[j, :2].max() < 93
    ]
    assert inside
    for joint in inside:
        x, y = np.round(keypoints[joint, :2]).astype(int)
        assert abs(int(image[y, x, 0]) - COLOURS[joint]) <= 2


@pytest.mark.parametrize("seed", range(4))
def test_a_flip_swaps_left_and_right(seed):
    image, labels = take(Augmentation(flip=1, colour=0, blur=0), seed)
    keypoints = labels.keypoints[0]
    seen = 0
    for joint in range(17):
        x, y, visible = keypoints[joint]
        if visible and min(x, y) > 2 and max(x, y) < 93:
            assert abs(int(image[round(y), round(x), 0]) - COLOURS[COCO.flip[joint]]) <= 2
            seen += 1
    assert seen


def test_without_augmentation_the_middle_of_the_picture_stays_in_the_middle():
    image, labels = take(PLAIN)
    _, own = picture()
    expected = (own.keypoints[0, :, :2] - (80, 60)) * (SIDE / 120) + SIDE / 2
    seen = labels.keypoints[0, :, 2] > 0
    assert seen.sum() == 17
    np.testing.assert_allclose(labels.keypoints[0, seen, :2], expected[seen], atol=1e-4)
    assert image.shape == (SIDE, SIDE, 3)


def test_people_outside_the_crop_go_and_joints_outside_lose_their_label():
    _, own = picture()
    far = own.keypoints + np.array([500, 0, 0], np.float32)
    half = own.keypoints + np.array([60, 0, 0], np.float32)
    _, labels = take(PLAIN, labels=Labels(np.concatenate([far, half]), np.repeat(own.sizes, 2), own.labelled))
    assert len(labels.keypoints) == 1
    hidden = labels.keypoints[0, :, 2] == 0
    assert 0 < hidden.sum() < 17
    assert not labels.keypoints[0, hidden].any()


def test_an_unlabelled_joint_stays_unlabelled():
    _, own = picture()
    own.keypoints[0, 3] = 0
    _, labels = take(Augmentation(flip=0), seed=3, labels=own)
    assert not labels.keypoints[0, 3].any()


def test_ignored_regions_move_along():
    _, own = picture()
    square = np.array([(26, 18), (34, 18), (34, 26), (26, 26)], np.float32)  # around joint 0
    labels = Labels(own.keypoints, own.sizes, own.labelled, [square])
    for seed in range(8):
        _, moved = take(Augmentation(flip=0, scale=(0.8, 0.9), about_person=0, translation=0), seed, labels)
        x, y = moved.keypoints[0, 0, :2]
        mask = loss_mask(moved, SIDE, 2)
        assert mask[int(y / 2), int(x / 2)] == 0
        assert mask.mean() > 0.9


def test_the_same_seed_gives_the_same_crop():
    first, second = take(Augmentation(), 5), take(Augmentation(), 5)
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1].keypoints, second[1].keypoints)
    assert (take(Augmentation(), 6)[0] != first[0]).any()
