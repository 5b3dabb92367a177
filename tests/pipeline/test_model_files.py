"""What torch needs to know of a checkpoint is what its ONNX file would say, without an export."""

from __future__ import annotations

import pytest

from core.progress import unseen
from engine.onnx_file import read_spec
from export.zoo import MODELS_FOLDER
from pipeline.model_files import torch_graph, torch_spec

torch = pytest.importorskip("torch")


@pytest.mark.parametrize("name", ["tiny", "small"])
def test_torch_learns_the_spec_of_a_checkpoint_without_an_export(name, monkeypatch):
    monkeypatch.setattr("export.to_onnx.export_model", lambda *_, **__: pytest.fail("it was exported"))
    spec = torch_spec(name, unseen)
    assert spec == read_spec(MODELS_FOLDER / f"{name}-fp16.onnx")
    by_path = torch_spec(f"{MODELS_FOLDER / name}.safetensors", unseen)
    assert by_path == spec
    graph = torch_graph(name, spec)
    assert next(graph.parameters()).dtype == torch.float16


def test_an_onnx_file_is_no_checkpoint():
    spec = torch_spec("tiny", unseen)
    for ask in (lambda model: torch_spec(model, unseen), lambda model: torch_graph(model, spec)):
        with pytest.raises(ValueError, match="torch needs a checkpoint, got the ONNX file"):
            ask("model.onnx")
