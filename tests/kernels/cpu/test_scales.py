import numpy as np
import pytest

from kernels import DecodeOptions
from kernels.cpu import decode, decode_scales
from tests.reference import decode as reference
from tests.reference.golden import crowd_outputs


def scales(*, flip=False, tag_dims=1):
    """One crowd at 2, 1 and 1/2 of 128x192: (heatmaps, tags or None) each."""
    heatmaps, tags = crowd_outputs(4, (128, 192), flip=flip)
    tags = np.concatenate([tags, tags[:, :, ::-1]][:tag_dims], 1)
    large, small = (reference.resize(heatmaps, hw) for hw in ((128, 192), (32, 48)))
    return [(large, None), (heatmaps, tags), (small, None)]


@pytest.mark.parametrize("tag_dims", [1, 2])
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("project", [False, True])
def test_several_scales_are_those_of_the_reference(flip, project, tag_dims):
    parts, options = scales(flip=flip, tag_dims=tag_dims), DecodeOptions(project=project)
    keypoints, scores = decode_scales(parts, (128, 192), options)
    want, want_scores = reference.decode_scales(parts, (128, 192), options)
    assert len(want) >= 4
    np.testing.assert_allclose(keypoints, want, atol=1e-4, rtol=0)
    np.testing.assert_allclose(scores, want_scores, atol=1e-6, rtol=0)


@pytest.mark.parametrize("project", [False, True])
def test_one_scale_is_decode(project):
    maps, options = crowd_outputs(4, (128, 192)), DecodeOptions(project=project)
    keypoints, scores = decode_scales([maps], (128, 192), options)
    want, want_scores = decode(*maps, options)
    np.testing.assert_allclose(keypoints, want, atol=1e-4, rtol=0)
    np.testing.assert_allclose(scores, want_scores, atol=1e-6, rtol=0)


def test_positions_come_back_in_pixels_of_the_given_size():
    heatmaps, tags = crowd_outputs(2, (128, 128))
    small, _ = decode_scales([(heatmaps, tags)], (128, 128))
    large, _ = decode_scales([(heatmaps, tags)], (256, 256))
    seen = small[..., 2] > 0.3
    np.testing.assert_allclose(large[seen][:, :2], 2 * small[seen][:, :2], atol=2)


def test_tags_come_with_exactly_one_part():
    heatmaps, tags = crowd_outputs(1, (64, 64))
    for parts in ([], [(heatmaps, None)], [(heatmaps, tags), (heatmaps, tags)]):
        with pytest.raises(ValueError, match="exactly one"):
            decode_scales(parts, (64, 64))


def test_parts_that_disagree_are_named():
    heatmaps, tags = crowd_outputs(1, (64, 64))
    with pytest.raises(ValueError, match="same T"):
        decode_scales([(heatmaps, tags), (heatmaps[:, :14], None)], (64, 64))
    with pytest.raises(ValueError, match="size_hw is"):
        decode_scales([(heatmaps, tags)], (0, 64))
