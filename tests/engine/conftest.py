"""Exported networks that several files of this folder build, each exported once."""

from __future__ import annotations

import pytest

from core.spec import ModelSpec


@pytest.fixture(scope="session")
def w32_onnx(tmp_path_factory):
    """HigherHRNet-W32, FP16, everything dynamic."""
    from export.model import build_model
    from export.to_onnx import export_model
    from tests.export.networks import drawn

    path = tmp_path_factory.mktemp("w32") / "w32-fp16.onnx"
    return export_model(drawn(build_model("w32")), ModelSpec(name="w32-512", precision="fp16"), path)


@pytest.fixture(scope="session")
def small_onnx(tmp_path_factory):
    """The paper's head over two convolutions, FP16, everything dynamic."""
    from export.to_onnx import export_model
    from tests.export.networks import Small, drawn

    path = tmp_path_factory.mktemp("small") / "small.onnx"
    return export_model(drawn(Small()), ModelSpec(name="small", precision="fp16", short_side=128), path)
