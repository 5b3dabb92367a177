"""The whole chain in the simulator: small drawn crowds give the bits of the reference and of the host."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kernels.cpu import decode as host_decode
from kernels.cuda import Workspace, decode
from kernels.options import DecodeOptions
from tests.kernels.cuda.agreement import same_people
from tests.kernels.cuda.crowds import draw_crowd
from tests.kernels.cuda.every_kernel import run_every_kernel
from tests.kernels.cuda.simulator import BLOCKS, on_device
from tests.reference.decode import decode as reference

pytestmark = [pytest.mark.sim, pytest.mark.filterwarnings("ignore::RuntimeWarning")]
K, HW = 4, (8, 12)
ORDERS: dict[str, Any] = {"joint_order": (2, 0, 3, 1), "flip_order": (3, 2, 1, 0)}


def check(result, heatmaps, tags, options, n=None):
    """One frame's result against the reference and the host."""
    keypoints, scores, count = (array.copy_to_host() for array in result)
    if n is not None:
        keypoints, scores, count = keypoints[n], scores[n], count[n]
    for wanted_keypoints, wanted_scores in (reference(heatmaps, tags, options), host_decode(heatmaps, tags, options)):
        assert (
            same_people((keypoints[:count], scores[:count]), (wanted_keypoints, wanted_scores), heatmaps, options) == 0
        )
        np.testing.assert_array_equal(keypoints[:count], wanted_keypoints)  # here even to the bit
        np.testing.assert_array_equal(scores[:count], wanted_scores)
    assert not keypoints[count:].any() and not scores[count:].any()
    return int(count)


@pytest.mark.parametrize("project", [True, False])
@pytest.mark.parametrize("T", [1, 2])
def test_a_crowd_equals_host_and_reference(T, project):
    options = DecodeOptions(max_people=5, project=project, **ORDERS)
    heatmaps, tags = draw_crowd(np.random.default_rng(10 * T + project), 3, HW, K=K, T=T)
    workspace = Workspace(heatmaps.shape, options, blocks=BLOCKS)
    result = decode(on_device(heatmaps), on_device(tags), options, workspace)
    assert [array.shape for array in result] == [(5, K, 3), (5,), ()]
    assert check(result, heatmaps, tags, options) > 0


def test_two_frames_in_a_batch_and_a_workspace_used_again():
    options = DecodeOptions(max_people=4, **ORDERS)
    rng = np.random.default_rng(20)
    workspace = Workspace((2, 1, 3, 6, 8), DecodeOptions(max_people=4, joint_order=(2, 0, 1)), blocks=BLOCKS)
    options = workspace.options
    for people in ((3, 1), (0, 2)):
        frames = [draw_crowd(rng, count, (6, 8), K=3) for count in people]
        heatmaps, tags = (np.stack(maps) for maps in zip(*frames, strict=True))
        result = decode(on_device(heatmaps), on_device(tags), None, workspace)
        assert [array.shape for array in result] == [(2, 4, 3, 3), (2, 4), (2,)]
        for n in range(2):
            check(result, heatmaps[n], tags[n], options, n)


def test_noise_fills_every_place_and_keeps_the_strongest():
    options = DecodeOptions(max_people=4, joint_order=(0, 1))
    rng = np.random.default_rng(21)
    heatmaps = rng.uniform(0, 1, (1, 2, 8, 8)).astype(np.float32)
    tags = rng.normal(0, 2, (1, 2, 4, 4)).astype(np.float32)
    workspace = Workspace(heatmaps.shape, options, blocks=BLOCKS)
    assert check(decode(on_device(heatmaps), on_device(tags), options, workspace), heatmaps, tags, options) == 4


@pytest.mark.parametrize("level", [0.0, 0.5, np.nan])
def test_flat_maps_do_not_hang_and_equal_the_reference(level):
    options = DecodeOptions(max_people=3, joint_order=(0, 1))
    heatmaps, tags = np.full((1, 2, 4, 4), level, np.float32), np.zeros((1, 2, 2, 2), np.float32)
    workspace = Workspace(heatmaps.shape, options, blocks=BLOCKS)
    found = check(decode(on_device(heatmaps), on_device(tags), options, workspace), heatmaps, tags, options)
    assert found == (1 if level == 0.5 else 0)


def test_every_option_of_the_filter_and_half_precision():
    options = DecodeOptions(
        max_people=5, nms_size=3, adjust=False, min_score=0.2, min_joint=0.3, duplicate_oks=0.3, threshold=0.2, **ORDERS
    )
    heatmaps, tags = draw_crowd(np.random.default_rng(22), 4, HW, K=K)
    heatmaps, tags = heatmaps.astype(np.float16), tags.astype(np.float16)
    workspace = Workspace(heatmaps.shape, options, dtype=np.float16, blocks=BLOCKS)
    result = decode(on_device(heatmaps), on_device(tags), options, workspace)
    assert check(result, heatmaps.astype(np.float32), tags.astype(np.float32), options) > 0


def test_the_pass_for_the_sanitizer(monkeypatch):
    monkeypatch.setattr("kernels.cuda.assignment.WARP", 8)
    options = DecodeOptions(max_people=3, duplicate_oks=0.9, joint_order=(0, 1), flip_order=(1, 0))
    assert run_every_kernel((4, 6), 2, options, K=2, blocks=BLOCKS, sides=4) > 0


def test_agreement_tells_undecided_quarters_from_other_people():
    heatmaps = np.zeros((1, 1, 4, 4), np.float32)
    heatmaps[0, 0, 1, 1:4] = 0.5, 0.9, 0.5
    options = DecodeOptions(project=False, joint_order=(0,), refine=False)
    keypoints, scores = reference(heatmaps, np.zeros((1, 1, 2, 2), np.float32), options)
    turned = keypoints.copy()
    turned[0, 0, 0] += 1.0  # the other quarter, of a cell of two pixels: its neighbours are equal
    assert same_people((turned, scores), (keypoints, scores), heatmaps, options) == 1
    heatmaps[0, 0, 1, 3] = 0.6
    with pytest.raises(AssertionError, match="though its neighbours differ"):
        same_people((turned, scores), (keypoints, scores), heatmaps, options)
    with pytest.raises(AssertionError, match="moved by"):
        same_people((turned + 1, scores), (keypoints + np.array([0, 0, 1], np.float32), scores), heatmaps, options)
    with pytest.raises(AssertionError, match="0 people, expected 1"):
        same_people((keypoints[:0], scores[:0]), (keypoints, scores), heatmaps, options)


def test_without_refine_missing_joints_stay_missing():
    options = DecodeOptions(max_people=4, refine=False, joint_order=(0, 1))
    heatmaps, tags = draw_crowd(np.random.default_rng(23), 3, (6, 6), K=2, found=0.5)
    workspace = Workspace(heatmaps.shape, options, blocks=BLOCKS)
    result = decode(on_device(heatmaps), on_device(tags), options, workspace)
    check(result, heatmaps, tags, options)


def test_what_does_not_fit_is_named():
    options = DecodeOptions(max_people=4, joint_order=(0, 1))
    workspace = Workspace((1, 2, 6, 6), options, blocks=BLOCKS)
    heatmaps, tags = np.zeros((1, 2, 6, 6), np.float32), np.zeros((1, 2, 3, 3), np.float32)
    with pytest.raises(ValueError, match="differ from the workspace's"):
        decode(heatmaps, tags, DecodeOptions(max_people=4), workspace)
    with pytest.raises(ValueError, match="the workspace takes"):
        decode(heatmaps[:, :1], tags, options, workspace)
    with pytest.raises(ValueError, match="half the heatmaps' sides"):
        decode(heatmaps, heatmaps, options, workspace)
    with pytest.raises(TypeError, match="device memory"):
        decode([1], tags, options, workspace)
    with pytest.raises(ValueError, match="not C-contiguous"):
        decode(on_device(heatmaps).transpose((0, 1, 3, 2)), tags, options, workspace)
    with pytest.raises(ValueError, match="h and w even"):
        Workspace((1, 17, 7, 8), options)
    with pytest.raises(ValueError, match="max_people is 30; the device takes at most 8"):
        Workspace((1, 17, 8, 8), blocks=BLOCKS)
    with pytest.raises(ValueError, match="nms_size 81"):
        Workspace((1, 17, 64, 64), DecodeOptions(nms_size=81))
    with pytest.raises(ValueError, match="max_people x joints"):
        Workspace((1, 30, 64, 64), DecodeOptions(max_people=128, joint_order=tuple(range(30))))
