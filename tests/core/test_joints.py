"""The table of joint sets: complete, consistent, and the orders of the authors' code."""

import pytest

from core.joints import COCO, CROWDPOSE, JOINT_SETS, find_joint_set, joint_set_of, sigmas_for


@pytest.mark.parametrize("joint_set", JOINT_SETS.values(), ids=lambda one: one.name)
def test_every_fact_is_there_for_every_joint(joint_set):
    joints = len(joint_set)
    assert len(set(joint_set.joints)) == joints == len(joint_set.sigmas)
    assert min(joint_set.sigmas) > 0
    assert sorted(joint_set.grouping_order) == list(range(joints))
    assert {joint for edge in joint_set.edges for joint in edge} == set(range(joints))


def test_twins_are_those_of_the_authors():
    assert COCO.flip == (0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15)
    assert CROWDPOSE.flip == (1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 12, 13)


def test_the_order_of_grouping_is_that_of_the_authors():
    assert COCO.grouping_order == (0, 1, 2, 3, 4, 5, 6, 11, 12, 7, 8, 9, 10, 13, 14, 15, 16)
    assert CROWDPOSE.grouping_order == (0, 1, 2, 3, 4, 5, 6, 11, 12, 7, 8, 9, 10, 13)


def test_a_set_is_found_by_its_number_of_joints():
    assert (joint_set_of(17), joint_set_of(14), find_joint_set(5)) == (COCO, CROWDPOSE, None)
    with pytest.raises(ValueError, match="no joint set has 5 joints; known: 17"):
        joint_set_of(5)


def test_an_unknown_set_gets_coco_s_mean_sigma():
    assert sigmas_for(14) == CROWDPOSE.sigmas
    assert sigmas_for(5) == pytest.approx([sum(COCO.sigmas) / 17] * 5)
