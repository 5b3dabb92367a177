"""From what a user names, a model and an engine, to a FrameStep that runs. Runtimes are loaded here, when asked for."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

from engine.errors import EngineError, ModelError
from engine.files import cache_folder
from engine.gpu import find_gpu
from engine.spec import SIDE_MULTIPLE
from export import zoo
from kernels.options import DecodeOptions
from pipeline.step import FrameStep, HostStep

ENGINES = ("auto", "tensorrt", "tensorrt-rtx", "onnxruntime", "torch")
ONNX_SUFFIX, PLAN_SUFFIX = ".onnx", ".plan"


def open_step(model: str, *, engine: str, size: int | None, flip: bool, options: DecodeOptions) -> FrameStep:
    """The step for a model on an engine; its `about` says in one line what was picked and why.

    Raises ValueError for an unknown name or a size the model cannot take, ModelError, EngineError, DownloadError.
    """
    if engine not in ENGINES:
        raise ValueError(f"engine is {engine!r}; expected one of {', '.join(ENGINES)}")
    if size is not None and (size < SIDE_MULTIPLE or size % SIDE_MULTIPLE):
        raise ValueError(f"size is {size}; expected a positive multiple of {SIDE_MULTIPLE}, such as 256 or 512")
    _check_name(model)
    is_plan = Path(model).suffix == PLAN_SUFFIX
    if is_plan and engine == "onnxruntime":
        raise ValueError(f"{model} is a TensorRT plan; onnxruntime runs the .onnx it was built from")
    return _on_cpu(model, engine, size, flip, options)


def _on_cpu(model: str, engine: str, size: int | None, flip: bool, options: DecodeOptions) -> FrameStep:
    from engine.onnx_runner import OnnxRunner
    from kernels.cpu import warm_up

    path = _onnx_of(model)
    runner = OnnxRunner(path)
    if runner.spec.fixed_hw is not None and (size is not None or (flip and runner.batch == 1)):
        h, w = runner.spec.fixed_hw
        asked = "--size" if size is not None else "--flip"
        raise ValueError(
            f"{path} is fixed to 1x3x{h}x{w} and cannot do {asked}; export it without --fixed: "
            f"python -m export {runner.spec.name} --out {path.name}"
        )
    warm_up()  # compile now, or load what was compiled: the first frame shall not wait
    why = find_gpu()[1] if engine == "auto" else "as asked"
    return HostStep(
        lambda shape: runner,
        runner.spec,
        engine=runner.engine,
        about=f"{runner.spec.name} on onnxruntime, {runner.threads} CPU threads ({why})",
        options=options,
        size=size,
        flip=flip,
        on_close=runner.close,
    )


def _check_name(model: str) -> None:
    """A file must exist; anything else must be a name of the zoo."""
    path = Path(model)
    looks_like_file = path.suffix in (ONNX_SUFFIX, PLAN_SUFFIX, ".pth", ".pt", ".safetensors") or len(path.parts) > 1
    if model in zoo.MODELS:
        return
    if path.is_file():
        return
    if looks_like_file:
        raise ModelError(f"model {model} does not exist")
    raise ValueError(
        f"no model is called {model!r}; expected an .onnx or .plan file, or one of {', '.join(zoo.MODELS)}"
    )


def _onnx_of(model: str, *, fp16: bool = False) -> Path:
    """The ONNX file of a model: itself, the bundled one, or exported once and kept in the cache."""
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
    weights = zoo.locate(model) if model in zoo.MODELS else Path(model)
    with weights.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()[:16]
    path = cache_folder("onnx") / f"{weights.stem}-{digest}-{'fp16' if fp16 else 'fp32'}.onnx"
    if not path.is_file():
        from export.to_onnx import export_checkpoint

        path.parent.mkdir(parents=True, exist_ok=True)
        export_checkpoint(model, path, fp16=fp16)
    return path
