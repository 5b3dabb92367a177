"""The baseline gives the people that the project's own runner gives: what is compared does the same work."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engine.onnx_file import read_spec
from export.zoo import MODELS_FOLDER
from pipeline import PosePipeline, open_source
from pipeline.pose import LIVE_OPTIONS

CLIP = Path(__file__).parents[2] / "samples" / "crowd.mp4"

pytest.importorskip("torch")


@pytest.mark.parametrize("flip", [False, True])
def test_the_baseline_finds_the_same_people(flip):
    from benchmarks.host_torch import host_step

    with open_source(str(CLIP)) as source:
        image = next(iter(source)).image
    spec = read_spec(MODELS_FOLDER / "tiny.onnx")
    with PosePipeline("tiny", engine="onnxruntime", flip=flip) as ours:
        expected = ours(image)
        step = host_step("tiny", spec, LIVE_OPTIONS, device="cpu", flip=flip)
    with PosePipeline(step=step) as baseline:
        found = baseline(image)
    assert len(found) == len(expected) > 1
    np.testing.assert_allclose(found.keypoints, expected.keypoints, atol=0.5)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-3)
