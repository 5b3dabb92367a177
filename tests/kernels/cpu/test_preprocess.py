from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.cpu import preprocess
from tests.reference.preprocess import preprocess as reference_preprocess

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def preprocessed(image, out_hw, *, mean=MEAN, std=STD, **geometry):
    out = np.full((3, *out_hw), np.nan, np.float32)
    preprocess(image, out, mean=mean, std=std, **geometry)
    return out


def grey_levels(image, out_hw, **geometry):
    """(h, w, 3) BGR, 0..255."""
    out = preprocessed(image, out_hw, mean=(0, 0, 0), std=(1, 1, 1), **geometry)
    return 255 * out[::-1].transpose(1, 2, 0)


def smooth_picture(h, w):
    """Colours that change by less than a level over a quarter pixel: cv2 may round positions to 1/32."""
    ys, xs = np.mgrid[:h, :w]
    waves = [127 + 120 * np.sin(xs / (20 + 5 * c)) * np.cos(ys / (25 - 4 * c)) for c in range(3)]
    return np.stack(waves, axis=-1).astype(np.uint8)


@pytest.mark.parametrize(
    ("image_hw", "out_hw", "scale"),
    [
        ((480, 640), (256, 384), 256 / 480),
        ((1080, 1920), (256, 448), 256 / 1080),
        ((90, 60), (192, 128), 128 / 60),
        ((61, 101), (64, 64), 0.5),
    ],
)
def test_pixels_are_those_of_warp_affine(image_hw, out_hw, scale):
    image, (h, w) = smooth_picture(*image_hw), out_hw
    cx, cy = int(image_hw[1] / 2 + 0.5), int(image_hw[0] / 2 + 0.5)
    matrix = np.array([[scale, 0, w / 2 - scale * cx], [0, scale, h / 2 - scale * cy]])
    want = cv2.warpAffine(image, matrix, (w, h))
    got = grey_levels(image, out_hw, scale=scale, center=(cx, cy))
    assert np.abs(got - want).max() <= 1  # measured: 0.75


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 999),
    st.tuples(st.integers(1, 20), st.integers(1, 20)),
    st.tuples(st.integers(1, 24), st.integers(1, 24)),
    st.floats(0.1, 4),
    st.tuples(st.floats(-30, 30), st.floats(-30, 30)),
)
def test_any_geometry_is_that_of_the_reference(seed, image_hw, out_hw, scale, center):
    image = np.random.default_rng(seed).integers(0, 256, (*image_hw, 3), np.uint8)
    got = preprocessed(image, out_hw, scale=scale, center=center)
    want = reference_preprocess(image, out_hw, scale=scale, center=center, mean=MEAN, std=STD)
    np.testing.assert_allclose(got, want, atol=2e-5)


def test_channels_are_turned_to_rgb_and_normalised():
    image = np.zeros((4, 4, 3), np.uint8)
    image[...] = 255, 0, 51  # blue, green, red
    out = preprocessed(image, (4, 4), scale=1, center=(2, 2))
    want = [(0.2 - 0.485) / 0.229, (0 - 0.456) / 0.224, (1 - 0.406) / 0.225]
    np.testing.assert_allclose(out[:, 1, 1], want, atol=1e-5)


def test_at_scale_one_pixels_are_copied_and_the_rest_is_black():
    image = np.random.default_rng(0).integers(1, 256, (4, 6, 3), np.uint8)
    got = grey_levels(image, (8, 10), scale=1, center=(3, 2))
    np.testing.assert_allclose(got[2:6, 2:8], image, atol=1e-3)
    got[2:6, 2:8] = 0
    np.testing.assert_allclose(got, 0, atol=1e-3)


def test_a_border_pixel_fades_into_black():
    got = grey_levels(np.full((3, 3, 3), 200, np.uint8), (1, 4), scale=2, center=(0.5, 1.5))
    # samples at x = -0.5, 0, 0.5, 1 of row 1.25
    np.testing.assert_allclose(got[0, :, 0], [100, 200, 200, 200], atol=1e-3)


def test_read_only_and_strided_frames_are_taken():
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    want = preprocessed(image, (4, 4), scale=1, center=(4, 4))
    padded = np.zeros((8, 12, 3), np.uint8)
    padded[:, :8] = image
    image.flags.writeable = False
    np.testing.assert_array_equal(preprocessed(image, (4, 4), scale=1, center=(4, 4)), want)
    np.testing.assert_array_equal(preprocessed(padded[:, :8], (4, 4), scale=1, center=(4, 4)), want)


def test_bad_arguments_are_named():
    image, out = np.zeros((4, 4, 3), np.uint8), np.zeros((3, 4, 4), np.float32)
    good: dict[str, Any] = {"scale": 1.0, "center": (2.0, 2.0), "mean": MEAN, "std": STD}
    with pytest.raises(TypeError, match="image is float64"):
        preprocess(image.astype(float), out, **good)
    with pytest.raises(ValueError, match=r"image is \(4, 4\)"):
        preprocess(image[..., 0], out, **good)
    with pytest.raises(ValueError, match=r"expected \(3, h, w\)"):
        preprocess(image, out[:2], **good)
    with pytest.raises(ValueError, match="C-contiguous"):
        preprocess(image, out[:, :, ::2], **good)
    for bad in ({"scale": 0.0}, {"scale": float("nan")}, {"center": (float("inf"), 0.0)}):
        with pytest.raises(ValueError, match="expected a positive and two finite numbers"):
            preprocess(image, out, **{**good, **bad})
