"""The files of a model that a user names: checks that it exists, and makes its ONNX file or its torch module."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from core.errors import EngineError, ModelError
from core.files import cache_folder
from core.progress import Progress, unseen
from core.spec import ModelSpec
from export import zoo

if TYPE_CHECKING:
    from torch import nn

ONNX_SUFFIX, PLAN_SUFFIX = ".onnx", ".plan"
CHECKPOINT_SUFFIXES = (".pth", ".pt", ".safetensors")


def check_model(model: str) -> None:
    """Raises ModelError for a missing file, ValueError for an unknown name."""
    path = Path(model)
    if model in zoo.MODELS or path.is_file():
        return
    if path.suffix in (ONNX_SUFFIX, PLAN_SUFFIX, *CHECKPOINT_SUFFIXES) or len(path.parts) > 1:
        raise ModelError(f"model {model} does not exist; expected a file, or one of {', '.join(zoo.MODELS)}")
    raise ValueError(f"no model is called {model!r}; expected a file, or one of {', '.join(zoo.MODELS)}")


def onnx_file(model: str, progress: Progress, *, fp16: bool) -> Path:
    """The ONNX file of a model: itself, the bundled one, or one that is exported once and then cached.

    fp16: for an engine on a GPU. Raises ModelError, DownloadError, or EngineError if the export's packages are missing.
    """
    if Path(model).suffix == ONNX_SUFFIX:
        return Path(model)
    if model in zoo.MODELS and zoo.MODELS[model].url is None:
        path = zoo.MODELS_FOLDER / (f"{model}-fp16.onnx" if fp16 else f"{model}.onnx")
        if not path.is_file():
            raise ModelError(f"{path} is missing; it comes with the project: restore it from the repository")
        return path
    if importlib.util.find_spec("torch") is None or importlib.util.find_spec("onnx") is None:
        raise EngineError(
            f"{model} has to be exported to ONNX first, which needs torch and onnx; "
            "pip install torch onnx safetensors, or use the bundled --model tiny"
        )

    weights = zoo.locate(model, progress=progress) if model in zoo.MODELS else Path(model)
    with weights.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()[:16]
    path = cache_folder("onnx") / f"{weights.stem}-{digest}-{'fp16' if fp16 else 'fp32'}.onnx"
    if not path.is_file():
        from export.to_onnx import export_checkpoint

        progress(f"exporting {model} to ONNX", None)
        export_checkpoint(model, path, fp16=fp16)
    return path


def torch_model(model: str, *, fp16: bool, progress: Progress = unseen) -> tuple[nn.Module, ModelSpec]:
    """A torch module, image -> (heatmaps, tags), with batch-norm folded, in the precision of its spec.

    Raises ValueError for an ONNX file, ModelError for weights that cannot be read, DownloadError.
    """
    if Path(model).suffix == ONNX_SUFFIX:
        raise ValueError(f"torch needs a checkpoint, got the ONNX file {model}; give the checkpoint or use tensorrt")
    from export.head import Aggregated
    from export.named import open_checkpoint
    from export.to_onnx import fold_batch_norm

    network, spec = open_checkpoint(model, fp16=fp16, progress=progress)
    graph = fold_batch_norm(Aggregated(network).eval())
    return graph.half() if fp16 else graph, spec
