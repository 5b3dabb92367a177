"""The NV12 letterbox kernel in the simulator: it has the bits of `kernels.cpu`, whose tests compare that."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernels import cpu
from kernels.colour import RED_AND_BLUE, Colour
from kernels.cuda import preprocess, preprocess_nv12
from tests.kernels.cuda.simulator import examples, on_device

pytestmark = [pytest.mark.sim]

NORMAL: dict[str, Any] = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
COLOURS = [Colour(matrix, full) for matrix in RED_AND_BLUE for full in (False, True)]


@pytest.fixture(autouse=True, scope="module")
def _tiny_blocks():
    module = sys.modules[preprocess_nv12.__module__]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "THREADS", (8, 2))
        yield


def frames_of(rng: np.random.Generator, count: int, frame_wh: tuple[int, int], padding: int = 0) -> np.ndarray:
    w, h = frame_wh
    return rng.integers(0, 256, (count, h + (h + 1) // 2, w + w % 2 + padding), dtype=np.uint8)


@examples(12)
@given(
    st.integers(0, 999),
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    st.tuples(st.integers(1, 10), st.integers(1, 7)),
    st.sampled_from(COLOURS),
    st.floats(0.1, 4),
    st.tuples(st.floats(-20, 20), st.floats(-20, 20)),
)
def test_any_geometry_has_the_bits_of_the_host(  # noqa: PLR0917
    seed, frame_wh, out_hw, colour, scale, center
):
    rng = np.random.default_rng(seed)
    frame = frames_of(rng, 1, frame_wh, padding=seed % 3)[0]
    given_: dict[str, Any] = {"frame_wh": frame_wh, "colour": colour, "scale": scale, "center": center, **NORMAL}
    out, wanted = on_device(np.full((1, 3, *out_hw), 9, np.float32)), np.zeros((3, *out_hw), np.float32)
    preprocess_nv12(on_device(frame), out, **given_)
    cpu.preprocess_nv12(frame, wanted, **given_)
    assert out.copy_to_host()[0].tobytes() == wanted.tobytes()


def test_each_frame_is_followed_by_its_mirror_image():
    frame_wh, colour = (8, 5), Colour("bt709")
    frames = frames_of(np.random.default_rng(2), 2, frame_wh, padding=4)
    given_: dict[str, Any] = {"frame_wh": frame_wh, "colour": colour, "scale": 0.75, "center": (4.0, 2.0), **NORMAL}
    out = on_device(np.zeros((4, 3, 4, 6), np.float16))
    preprocess_nv12(on_device(frames), out, mirror=True, **given_)
    written = out.copy_to_host()
    for f, frame in enumerate(frames):
        wanted = np.zeros((3, 4, 6), np.float32)
        cpu.preprocess_nv12(frame, wanted, **given_)
        assert written[2 * f].tobytes() == wanted.astype(np.float16).tobytes()
        np.testing.assert_array_equal(written[2 * f + 1], written[2 * f][..., ::-1])


def test_a_grey_picture_is_that_of_the_bgr_kernel():
    """Where U and V are 128 and the range is full, Y is each of the three channels."""
    grey = np.random.default_rng(3).integers(0, 256, (6, 8), dtype=np.uint8)
    frame = np.vstack([grey, np.full((3, 8), 128, np.uint8)])
    geometry: dict[str, Any] = {"scale": 1.3, "center": (4.0, 3.0), **NORMAL}
    ours, theirs = (on_device(np.zeros((1, 3, 6, 9), np.float32)) for _ in range(2))
    preprocess_nv12(on_device(frame), ours, frame_wh=(8, 6), colour=Colour(full_range=True), **geometry)
    preprocess(on_device(np.stack([grey] * 3, axis=-1)), theirs, **geometry)
    np.testing.assert_allclose(ours.copy_to_host(), theirs.copy_to_host(), atol=1e-6)


def test_bad_arguments_are_named():
    frame, out = on_device(np.zeros((6, 4), np.uint8)), on_device(np.zeros((1, 3, 4, 4), np.float32))
    good: dict[str, Any] = {"frame_wh": (4, 4), "colour": Colour(), "scale": 1.0, "center": (2.0, 2.0), **NORMAL}
    preprocess_nv12(frame, out, **good)
    with pytest.raises(TypeError, match="expected uint8"):
        preprocess_nv12(out, out, **good)
    for wh, expected in (((4, 5), r"\(F, 8, 4 or more\)"), ((5, 4), r"\(F, 6, 6 or more\)"), ((0, 4), "for 0x4")):
        with pytest.raises(ValueError, match=expected):
            preprocess_nv12(frame, out, **{**good, "frame_wh": wh})
    with pytest.raises(ValueError, match=r"expected \(2, 3, H, W\)"):
        preprocess_nv12(frame, out, mirror=True, **good)
    with pytest.raises(ValueError, match="scale is 0"):
        preprocess_nv12(frame, out, **{**good, "scale": 0.0})
