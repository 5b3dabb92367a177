"""The letterbox from NV12: the reference's values, and FFmpeg's conversion to BGR followed by `preprocess`."""

from __future__ import annotations

from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.colour import RED_AND_BLUE, Colour
from kernels.cpu import preprocess, preprocess_nv12
from tests.reference.preprocess import nv12_to_bgr
from tests.reference.preprocess import preprocess as reference_preprocess

NORMAL: dict[str, Any] = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
PLAIN: dict[str, Any] = {"mean": (0, 0, 0), "std": (1 / 255, 1 / 255, 1 / 255)}  # levels 0..255
COLOURS = [Colour(matrix, full) for matrix in RED_AND_BLUE for full in (False, True)]
# FFmpeg's names of the matrices (AVColorSpace); its way to BGR is what software decoding goes.
MATRICES = {"bt601": 5, "bt709": 1, "bt2020": 9}


def drawn_nv12(seed: int, wh: tuple[int, int], *, padding: int = 0) -> np.ndarray:
    w, h = wh
    return np.random.default_rng(seed).integers(0, 256, (h + (h + 1) // 2, w + w % 2 + padding), dtype=np.uint8)


def preprocessed(frame, wh, out_hw, colour, **options):
    out = np.full((3, *out_hw), np.nan, np.float32)
    preprocess_nv12(frame, out, frame_wh=wh, colour=colour, **options)
    return out


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 999),
    st.tuples(st.integers(1, 20), st.integers(1, 20)),
    st.tuples(st.integers(1, 24), st.integers(1, 24)),
    st.sampled_from(COLOURS),
    st.floats(0.1, 4),
    st.tuples(st.floats(-30, 30), st.floats(-30, 30)),
)
def test_any_geometry_is_that_of_the_reference(  # noqa: PLR0917
    seed, wh, out_hw, colour, scale, center
):
    frame = drawn_nv12(seed, wh, padding=seed % 5)
    got = preprocessed(frame, wh, out_hw, colour, scale=scale, center=center, **NORMAL)
    bgr = nv12_to_bgr(frame, wh, *RED_AND_BLUE[colour.matrix], full_range=colour.full_range)
    want = reference_preprocess(bgr, out_hw, scale=scale, center=center, **NORMAL)
    np.testing.assert_allclose(got, want, atol=1e-3)  # positions are float32; measured: 2e-4


@pytest.mark.parametrize(
    ("ycc", "colour", "rgb"),
    [
        ((16, 128, 128), Colour(), (0, 0, 0)),
        ((235, 128, 128), Colour("bt709"), (255, 255, 255)),
        ((255, 128, 128), Colour(full_range=True), (255, 255, 255)),
        ((81, 90, 240), Colour("bt601"), (254, 0, 0)),  # the colour bars of BT.601 and BT.709
        ((63, 102, 240), Colour("bt709"), (255, 1, 0)),
        ((41, 240, 110), Colour("bt601"), (0, 0, 255)),
    ],
)
def test_colours_one_knows(ycc, colour, rgb):
    frame = np.vstack([np.full((2, 2), ycc[0], np.uint8), np.array([[ycc[1], ycc[2]]], np.uint8)])
    got = preprocessed(frame, (2, 2), (2, 2), colour, scale=1, center=(1, 1), **PLAIN)
    np.testing.assert_allclose(got[:, 0, 0], rgb, atol=1.1)


@pytest.mark.parametrize("colour", COLOURS, ids=str)
@pytest.mark.parametrize("picture", ["noise", "smooth"])
def test_levels_are_those_of_ffmpegs_bgr(colour, picture):
    """As software decoding goes: planar 4:2:0 to BGR by FFmpeg, then `preprocess`."""
    w, h = 192, 128
    if picture == "noise":
        frame = drawn_nv12(1, (w, h))
    else:
        ys, xs = np.mgrid[:h, :w]
        waves = [120 + 90 * np.sin(xs / (9 + c)) * np.cos(ys / (11 - c)) for c in range(3)]
        frame = np.zeros((h * 3 // 2, w), np.uint8)
        frame[:h] = waves[0]
        frame[h:, 0::2], frame[h:, 1::2] = waves[1][::2, ::2], waves[2][::2, ::2]
    planes = np.concatenate([frame[:h].ravel(), frame[h:, 0::2].ravel(), frame[h:, 1::2].ravel()])
    decoded = av.VideoFrame.from_ndarray(planes.reshape(-1, w).astype(np.uint8), "yuv420p")
    decoded.colorspace, decoded.color_range = MATRICES[colour.matrix], 2 if colour.full_range else 1
    bgr = np.ascontiguousarray(decoded.to_ndarray(format="bgr24"), np.uint8)
    want = np.zeros((3, 96, 144), np.float32)
    geometry: dict[str, Any] = {"scale": 0.75, "center": (96, 64), **PLAIN}
    preprocess(bgr, want, **geometry)
    got = preprocessed(frame, (w, h), (96, 144), colour, **geometry)
    error = np.abs(got - want)
    assert error.max() <= 3  # measured: 2.9, and 1.0 in the mean; FFmpeg computes with 8 to 16 bits
    assert error.mean() <= 1


def test_chroma_is_read_beside_its_pixels():
    """One red 2x2 block of a grey frame of odd sides stays where it is."""
    frame = np.full((8, 6), 128, np.uint8)  # 5 x 5, with 6 bytes a row
    frame[5 + 1, 3] = 255  # V of columns 2 and 3, rows 2 and 3
    got = preprocessed(frame, (5, 5), (5, 5), Colour(full_range=True), scale=1, center=(2.5, 2.5), **PLAIN)
    red = np.argwhere(got[0] > 200)
    assert red.tolist() == [[y, x] for y in (2, 3) for x in (2, 3)]


def test_outside_is_black_and_a_border_pixel_fades_into_it():
    frame = np.vstack([np.full((4, 4), 200, np.uint8), np.full((2, 4), 128, np.uint8)])
    got = preprocessed(frame, (4, 4), (1, 6), Colour(full_range=True), scale=2, center=(0.5, 1.5), **PLAIN)
    np.testing.assert_allclose(got[:, 0], np.tile([0, 100, 200, 200, 200, 200], (3, 1))[:, :6], atol=1e-3)


def test_bad_arguments_are_named():
    frame, out = np.zeros((6, 4), np.uint8), np.zeros((3, 4, 4), np.float32)
    good: dict[str, Any] = {"frame_wh": (4, 4), "colour": Colour(), "scale": 1.0, "center": (2.0, 2.0), **NORMAL}
    preprocess_nv12(frame, out, **good)
    with pytest.raises(TypeError, match="frame is float64"):
        preprocess_nv12(frame.astype(float), out, **good)
    for wh, expected in (
        ((4, 5), r"expected \(8, 4 or more\)"),
        ((5, 4), r"expected \(6, 6 or more\)"),
        ((0, 4), "0x4"),
    ):
        with pytest.raises(ValueError, match=expected):
            preprocess_nv12(frame, out, **{**good, "frame_wh": wh})
    with pytest.raises(ValueError, match="C-contiguous"):
        preprocess_nv12(frame, out[:, :, ::2], **good)
    with pytest.raises(ValueError, match="expected a positive and two finite numbers"):
        preprocess_nv12(frame, out, **{**good, "scale": float("nan")})
    with pytest.raises(ValueError, match="matrix is 'bt470'"):
        Colour("bt470")  # type: ignore[arg-type]
