"""Targets against values computed by hand."""

from __future__ import annotations

import numpy as np
import pytest

from core.oks import joint_similarities
from train.pictures import Labels
from train.targets import AREA_OF_BOX, LOWEST, OKS_SHARE, heatmap, joint_sigmas, loss_mask, peak_heights, tag_cells


def people(*points, joints=2):
    """One person per point (joint, x, y); all other joints are unlabelled."""
    out = np.zeros((len(points), joints, 3), np.float32)
    for person, (joint, x, y) in zip(out, points, strict=True):
        person[joint] = x, y, 2
    return out


@pytest.mark.parametrize("stride", [4, 2])
def test_a_keypoint_is_a_gaussian_of_height_one_at_its_cell(stride):
    x, y = 5.5 * stride, 9.5 * stride  # the centre of cell (5, 9)
    maps = heatmap(people((1, x, y)), 16 * stride, stride)
    assert maps.shape == (2, 16, 16)
    assert maps[1, 9, 5] == 1
    assert maps[1, 9, 7] == pytest.approx(np.exp(-0.5))  # one sigma, two cells, away
    assert maps[1, 7, 5] == pytest.approx(np.exp(-0.5))
    assert maps[1, 9, 12] == 0
    assert not maps[0].any()


def test_a_narrower_gaussian_falls_sooner():
    person = np.zeros((1, 1, 3), np.float32)
    person[0, 0] = 30, 30, 2  # the middle of cell (7, 7) at 1/4
    wide, narrow = (heatmap(person, 64, 4, sigma)[0] for sigma in (2.0, 1.0))
    assert wide[7, 7] == narrow[7, 7] == 1
    assert narrow[7, 9] == pytest.approx(wide[7, 9] ** 4)


def test_between_two_cells_both_are_equally_high():
    maps = heatmap(people((0, 24, 22)), 64, 4)
    assert maps[0, 5, 5] == maps[0, 5, 6] == maps[0].max() < 1


def test_where_two_people_meet_the_larger_value_stands():
    apart = [heatmap(people((0, x, 30)), 64, 4) for x in (26, 38)]
    together = heatmap(people((0, 26, 30), (0, 38, 30)), 64, 4)
    np.testing.assert_array_equal(together, np.maximum(*apart))


def test_small_people_have_lower_peaks():
    sizes = np.array([1, 50, 100, 300], np.float32)
    heights = peak_heights(sizes, 100)
    np.testing.assert_allclose(heights, [LOWEST, np.sqrt(0.5), 1, 1], rtol=1e-6)
    both = people((0, 10, 10), (0, 46, 46))
    maps = heatmap(both, 64, 4, heights=heights[[1, 3]])
    np.testing.assert_allclose(maps, np.maximum(heights[1] * heatmap(both[:1], 64, 4), heatmap(both[1:], 64, 4)))
    assert peak_heights(sizes, 0).tolist() == [1] * 4


def test_a_gaussian_has_the_width_of_the_joints_oks():
    size, stride = 90.0, 2
    sigmas = joint_sigmas(np.array([size]), 17, stride, (0.1, 100))[0]
    away = np.zeros((17, 2))
    away[:, 0] = sigmas * stride / OKS_SHARE
    oks = joint_similarities(away, np.zeros((17, 2)), np.array(AREA_OF_BOX * size**2))
    np.testing.assert_allclose(oks, np.exp(-0.5), rtol=1e-5)
    limited = joint_sigmas(np.array([1, size, 1000]), 17, stride, (1.25, 3.5))
    assert limited[0].tolist() == [1.25] * 17
    assert limited[2].tolist() == [3.5] * 17
    assert sigmas.argmax() == 11 and sigmas.argmin() == 1  # a hip, an eye
    one = people((1, 41, 41), joints=17)
    np.testing.assert_array_equal(heatmap(one, 64, 2, limited[1:2])[1], heatmap(one, 64, 2, float(limited[1, 1]))[1])


def test_a_keypoint_at_the_border_is_cut_not_wrapped():
    maps = heatmap(people((0, 0.5, 63.5)), 64, 4)
    assert maps[0].argmax() == 15 * 16
    assert not maps[0, :8].any() and not maps[0, :, 8:].any()


def test_ignored_regions_have_no_loss():
    square = np.array([(16, 16), (31, 16), (31, 31), (16, 31)], np.float32)
    mask = loss_mask(Labels(people((0, 5, 5)), np.ones(1, np.float32), np.ones(2, bool), [square]), 64, 4)
    assert mask[4:8, 4:8].sum() == 0
    assert mask.sum() >= 16 * 16 - 5 * 5
    assert mask[0, 0] == mask[12, 12] == 1


def test_tag_cells_point_at_each_keypoint():
    keypoints = np.concatenate([people((0, 9, 21)), people((1, 63.9, 0))])
    cells = tag_cells(keypoints, 64, max_people=3)
    assert cells.tolist() == [[5 * 16 + 2, -1], [-1, 15], [-1, -1]]


def test_with_too_many_people_those_with_fewest_keypoints_go():
    keypoints = np.concatenate([people((0, 1, 1)), people((0, 33, 1))])
    keypoints[1, 1] = 41, 1, 1
    assert tag_cells(keypoints, 64, max_people=1).tolist() == [[8, 10]]
