"""Letterbox compared with the authors' formulas, computed with OpenCV's transform."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.letterbox import Letterbox
from tests.pipeline.onnx_models import blob_spec

SIDES = st.integers(138, 2200)  # longer ones are padded


@pytest.mark.parametrize(
    ("frame_wh", "short_side", "input_hw"),
    [
        ((640, 480), 512, (512, 704)),
        ((384, 256), 256, (256, 384)),
        ((1280, 720), 512, (512, 960)),
        ((1920, 1080), 512, (512, 960)),
        ((480, 640), 512, (704, 512)),
        ((640, 480), 256, (256, 384)),
        ((1920, 1080), 256, (256, 512)),
        ((512, 512), 512, (512, 512)),
        ((641, 512), 512, (512, 704)),  # one whole pixel more opens the next multiple …
        ((1281, 1024), 512, (512, 640)),  # … half a pixel, 640.5, does not
        ((60, 960), 64, (1024, 64)),  # the longest that is not padded
        ((3, 1000), 64, (1024, 64)),
        ((2000, 4), 320, (320, 5120)),
    ],
)
def test_input_sizes(frame_wh, short_side, input_hw):
    assert Letterbox.with_short_side(frame_wh, short_side).input_hw == input_hw


@pytest.mark.parametrize(
    ("scale", "min_scale", "input_hw"),
    [(0.5, 0.5, (256, 384)), (1, 0.5, (512, 768)), (2, 0.5, (1024, 1536)), (0.6, 0.2, (384, 576))],
)
def test_sizes_of_several_scales_are_multiples_of_the_smallest(scale, min_scale, input_hw):
    assert Letterbox.with_short_side((640, 480), 512, scale=scale, min_scale=min_scale).input_hw == input_hw


@given(SIDES, SIDES, st.sampled_from([64, 256, 512]))
def test_the_mapping_is_the_authors_affine_transform(w, h, short_side):
    box = Letterbox.with_short_side((w, h), short_side)
    hr, wr = box.input_hw
    center = np.array([int(w / 2 + 0.5), int(h / 2 + 0.5)], np.float32)
    source_width = w if w < h else wr / hr * h
    source, target = np.zeros((3, 2), np.float32), np.zeros((3, 2), np.float32)
    source[0], target[0] = center, (wr / 2, hr / 2)
    source[1], target[1] = center + np.array([0, -source_width / 2], np.float32), (wr / 2, hr / 2 - wr / 2)
    for points in (source, target):
        direction = points[0] - points[1]
        points[2] = points[1] + np.array([-direction[1], direction[0]], np.float32)
    authors = cv2.getAffineTransform(source, target)
    corners = np.array([[0, 0], [w, 0], [0, h], [w, h]], np.float64)
    expected = corners @ authors[:, :2].T + authors[:, 2]
    np.testing.assert_allclose(box.to_input(corners), expected, rtol=1e-5, atol=0.02)


@given(SIDES, SIDES)
def test_the_whole_frame_fits_but_for_the_authors_one_pixel(w, h):
    box = Letterbox.with_short_side((w, h), 256)
    assert min(box.input_hw) == 256
    assert all(side % 64 == 0 for side in box.input_hw)
    assert box.scale == pytest.approx(256 / min(w, h))
    assert np.ptp(box.to_input(np.array([[0, 0], [w, h]])), axis=0) == pytest.approx([w * box.scale, h * box.scale])
    assert box.input_hw[1] > w * box.scale - 1
    assert box.input_hw[0] > h * box.scale - 1


@given(SIDES, SIDES, st.floats(-50, 3000), st.floats(-50, 3000))
def test_there_and_back(w, h, x, y):
    box = Letterbox.inside((w, h), (256, 448))
    assert box.to_frame(box.to_input(np.array([x, y]))) == pytest.approx([x, y], abs=1e-6)


def test_a_fixed_input_holds_the_whole_frame_centred():
    box = Letterbox.inside((1000, 500), (512, 512))
    assert box.scale == 0.512
    np.testing.assert_allclose(box.to_input(np.array([[0, 0], [1000, 500]])), [[0, 128], [512, 384]])


@pytest.mark.parametrize("frame_wh", [(2000, 4), (4, 2000), (1000, 61)])
def test_a_strip_is_padded_to_the_longest_input(frame_wh):
    box = Letterbox.with_short_side(frame_wh, 128)
    assert sorted(box.input_hw) == [128, 2048]
    low, high = box.to_input(np.array([[0, 0], frame_wh]))
    assert (low >= -box.scale).all()
    assert (high <= np.array(box.input_hw[::-1]) + box.scale).all()


def test_a_fixed_input_of_the_same_shape_maps_as_the_short_side_does():
    assert Letterbox.inside((640, 480), (512, 704)) == Letterbox.with_short_side((640, 480), 512)


def test_an_odd_side_is_centred_on_a_whole_pixel():
    assert Letterbox.with_short_side((641, 479), 256).center == (321, 240)


def test_the_model_decides_and_size_overrides():
    assert Letterbox.for_model((640, 480), blob_spec(short_side=256)).input_hw == (256, 384)
    assert Letterbox.for_model((640, 480), blob_spec(short_side=256), 512).input_hw == (512, 704)
    assert Letterbox.for_model((640, 480), blob_spec(fixed_hw=(192, 320))).input_hw == (192, 320)


def test_a_frame_without_size_is_refused():
    with pytest.raises(ValueError, match=r"frame size is \(0, 4\)"):
        Letterbox.with_short_side((0, 4), 256)
