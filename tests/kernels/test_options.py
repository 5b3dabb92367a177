import dataclasses

import pytest

import kernels
import kernels.cpu
from core.joints import COCO, CROWDPOSE
from kernels import DecodeOptions


def test_defaults_are_those_of_the_authors():
    options = DecodeOptions()
    assert (options.max_people, options.threshold, options.tag_threshold, options.nms_size) == (30, 0.1, 1.0, 5)
    assert options.project and options.adjust and options.refine
    assert (options.min_score, options.min_joint, options.duplicate_oks) == (0.0, 0.0, None)


def test_options_are_frozen_and_hashable():
    with pytest.raises(dataclasses.FrozenInstanceError):
        DecodeOptions().threshold = 0.2  # type: ignore[misc]
    assert hash(DecodeOptions(max_people=5)) == hash(DecodeOptions(max_people=5))


def test_the_number_of_joints_chooses_the_skeleton():
    assert DecodeOptions().order_for(17) == COCO.grouping_order
    assert DecodeOptions().order_for(14) == CROWDPOSE.grouping_order
    assert DecodeOptions().flip_for(17) == COCO.flip
    assert DecodeOptions().flip_for(14) == CROWDPOSE.flip


def test_a_given_order_is_used_and_must_fit():
    options = DecodeOptions(joint_order=(2, 0, 1), flip_order=(0, 2, 1))
    assert options.order_for(3) == (2, 0, 1) and options.flip_for(3) == (0, 2, 1)
    with pytest.raises(ValueError, match="joint_order has 3 entries, the maps have 17 joints"):
        options.order_for(17)
    with pytest.raises(ValueError, match="5 joints have no default flip_order"):
        DecodeOptions().flip_for(5)


@pytest.mark.parametrize(
    "bad",
    [
        {"max_people": 0},
        {"max_people": -1},
        {"max_people": 129},
        {"nms_size": 0},
        {"nms_size": 4},
        {"threshold": -0.1},
        {"threshold": float("nan")},
        {"tag_threshold": 0.0},
        {"tag_threshold": float("nan")},
        {"min_score": 1.1},
        {"min_joint": -0.1},
        {"duplicate_oks": 0.0},
        {"duplicate_oks": 1.5},
        {"joint_order": (0, 0, 1)},
        {"flip_order": (1, 2, 3)},
    ],
)
def test_a_bad_option_is_named_with_what_was_expected(bad):
    (name,) = bad
    with pytest.raises(ValueError, match=rf"{name} is .*expected"):
        DecodeOptions(**bad)


@pytest.mark.parametrize("package", [kernels, kernels.cpu])
def test_public_names_are_sorted_and_exist(package):
    assert package.__all__ == sorted(package.__all__)
    assert all(hasattr(package, name) for name in package.__all__)
