"""What torch needs to know of a checkpoint is what its ONNX file would say, without an export."""

from __future__ import annotations

import pytest

from engine.onnx_file import read_spec
from export.zoo import MODELS_FOLDER
from pipeline.model_files import torch_model

torch = pytest.importorskip("torch")


@pytest.mark.parametrize("name", ["tiny", "small"])
def test_torch_opens_a_checkpoint_without_an_export(name, monkeypatch):
    monkeypatch.setattr("export.to_onnx.export_model", lambda *_, **__: pytest.fail("it was exported"))
    for model in (name, f"{MODELS_FOLDER / name}.safetensors"):
        graph, spec = torch_model(model, fp16=True)
        assert spec == read_spec(MODELS_FOLDER / f"{name}-fp16.onnx")
        assert next(graph.parameters()).dtype == torch.float16


def test_an_onnx_file_is_no_checkpoint():
    with pytest.raises(ValueError, match="torch needs a checkpoint, got the ONNX file"):
        torch_model("model.onnx", fp16=True)
