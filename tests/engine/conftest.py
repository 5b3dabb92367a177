"""Networks that several files of this folder use, and a folder for compiled ones."""

from __future__ import annotations

import pytest

from core.spec import ModelSpec
from engine.openvino_cache import CompiledCache
from tests.pipeline.onnx_models import write_blob_model


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


@pytest.fixture
def path(tmp_path):
    return write_blob_model(tmp_path / "blobs.onnx")


@pytest.fixture
def cache(tmp_path):
    return CompiledCache(tmp_path / "compiled")
