"""The letterbox kernel against tests/reference, in the simulator."""

from __future__ import annotations

import sys
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from kernels.cuda import preprocess
from tests.kernels.cuda.simulator import on_device
from tests.reference.preprocess import preprocess as reference

pytestmark = [pytest.mark.sim]

NORMAL: dict[str, Any] = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


@pytest.fixture(autouse=True)
def _tiny_blocks(monkeypatch):
    monkeypatch.setattr(sys.modules[preprocess.__module__], "THREADS", (8, 2))


@pytest.mark.parametrize(
    ("frame_hw", "out_hw", "scale", "center"),
    [
        ((9, 7), (10, 12), 1.3, (3.0, 4.0)),  # enlarged, all borders of the frame inside
        ((20, 30), (6, 9), 0.31, (15.0, 10.0)),  # shrunk, letterboxed
        ((6, 6), (5, 9), 1.0, (40.0, -40.0)),  # the frame lies outside: black
    ],
)
def test_equals_the_reference(frame_hw, out_hw, scale, center):
    rng = np.random.default_rng(1)
    frame = rng.integers(0, 256, (*frame_hw, 3)).astype(np.uint8)
    out = on_device(np.full((1, 3, *out_hw), 9, np.float32))
    preprocess(on_device(frame), out, scale=scale, center=center, **NORMAL)
    expected = reference(frame, out_hw, scale=scale, center=center, **NORMAL)
    np.testing.assert_allclose(out.copy_to_host()[0], expected, atol=2e-4)


def test_each_frame_is_followed_by_its_mirror_image():
    rng = np.random.default_rng(2)
    frames = rng.integers(0, 256, (2, 5, 8, 3)).astype(np.uint8)
    out = on_device(np.zeros((4, 3, 4, 6), np.float16))
    preprocess(on_device(frames), out, scale=0.75, center=(4.0, 2.0), mirror=True, **NORMAL)
    written = out.copy_to_host()
    for f, frame in enumerate(frames):
        expected = reference(frame, (4, 6), scale=0.75, center=(4.0, 2.0), **NORMAL)
        np.testing.assert_allclose(written[2 * f], expected, atol=2e-3)
        np.testing.assert_array_equal(written[2 * f + 1], written[2 * f][..., ::-1])


def test_bad_arguments_are_named():
    frame, out = on_device(np.zeros((4, 4, 3), np.uint8)), on_device(np.zeros((1, 3, 4, 4), np.float32))
    geometry: dict[str, Any] = {"scale": 1.0, "center": (2.0, 2.0), **NORMAL}
    with pytest.raises(TypeError, match="expected uint8"):
        preprocess(out, out, **geometry)
    with pytest.raises(ValueError, match=r"expected \(2, 3, H, W\)"):
        preprocess(frame, out, mirror=True, **geometry)
    with pytest.raises(ValueError, match="scale is 0"):
        preprocess(frame, out, **{**geometry, "scale": 0.0})


def test_black_is_black_before_normalisation():
    frame, out = on_device(np.full((2, 2, 3), 255, np.uint8)), on_device(np.zeros((1, 3, 2, 12), np.float32))
    preprocess(frame, out, scale=1.0, center=(1.0, 1.0), **NORMAL)
    row = out.copy_to_host()[0, :, 0]
    black = [-m / s for m, s in zip(NORMAL["mean"], NORMAL["std"], strict=True)]
    np.testing.assert_allclose(row[:, 0], black, rtol=1e-6)
    assert all((a <= b).all() for a, b in pairwise(row[:, :6].T))  # it only gets brighter towards the frame
