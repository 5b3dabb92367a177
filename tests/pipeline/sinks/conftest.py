from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import run_video
from tests.pipeline.onnx_models import write_blob_model


@pytest.fixture
def copied(tmp_path) -> Callable[..., Path]:
    """The annotated copy of a film."""
    model = write_blob_model(tmp_path / "blobs.onnx")

    def copy(film: Path, name: str, *arguments: str) -> Path:
        out: Path = tmp_path / name
        assert run_video.main([str(film), "--model", str(model), "--save", str(out), *arguments]) == 0
        return out

    return copy
