"""open_step: the file and engine that it chooses, and its errors."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

import pytest

from core.errors import EngineError, ModelError
from core.spec import ModelSpec
from engine.gpu import Gpu
from pipeline import models
from pipeline.models import StepOptions, open_step
from tests.pipeline.onnx_models import blob_spec, write_blob_model

GPU = Gpu("NVIDIA Test", (8, 6), 1 << 33, (13, 0))


def open_with(model, engine="auto", **options):
    return open_step(str(model), StepOptions(engine=engine, **options))


@pytest.fixture
def onnx(tmp_path):
    return write_blob_model(tmp_path / "blobs.onnx")


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(models, "find_gpu", lambda index: (None, "no driver here"))


@pytest.fixture
def installed(monkeypatch):
    """The set of installed packages, on a machine with a GPU; a test adds their names."""
    packages: set[str] = set()
    monkeypatch.setattr(models, "find_gpu", lambda index=0: (GPU, str(GPU)))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if name in packages else None)
    return packages


@pytest.mark.parametrize(
    ("machine", "engine"), [("x86_64", "openvino"), ("AMD64", "openvino"), ("arm64", "onnxruntime")]
)
def test_without_a_gpu_auto_is_the_cpu_and_says_why(onnx, no_gpu, monkeypatch, machine, engine):
    pytest.importorskip("openvino")
    monkeypatch.setattr("platform.machine", lambda: machine)
    step = open_with(onnx)
    assert (step.engine, step.spec.name) == (engine, "blobs")
    assert step.about.startswith(f"blobs on {engine}, ")
    assert step.about.endswith(" CPU threads (no driver here)")
    step.close()


@pytest.mark.parametrize("error", [EngineError("no such instruction"), ModelError("an unknown layer")])
def test_where_openvino_fails_auto_is_onnxruntime_and_says_why(onnx, no_gpu, monkeypatch, error):
    def fails(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr("engine.openvino_runner.OpenVinoRunner", fails)
    step = open_with(onnx)
    assert step.engine == "onnxruntime"
    assert step.about.endswith(f"(no driver here; openvino was tried: {error})")
    step.close()


def test_openvino_that_is_not_installed_is_not_tried(onnx, no_gpu, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "openvino" else found(name))
    step = open_with(onnx)
    assert step.engine == "onnxruntime"
    assert step.about.endswith("(no driver here)")
    step.close()


def test_a_device_is_openvinos(onnx, no_gpu, monkeypatch):
    pytest.importorskip("openvino")
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    step = open_with(onnx, device="CPU")
    assert step.engine == "openvino"
    step.close()
    for engine in ("onnxruntime", "tensorrt", "torch"):
        with pytest.raises(ValueError, match=f"--device CPU is for --engine openvino, got {engine}; omit it"):
            open_with(onnx, engine, device="CPU")
    with pytest.raises(ValueError, match="device is 'gpu'; expected one of CPU, GPU, NPU"):
        open_with(onnx, device="gpu")


def test_an_engine_that_was_asked_for_is_not_replaced(onnx, no_gpu):
    for engine in ("tensorrt", "tensorrt-rtx", "torch"):
        with pytest.raises(EngineError, match=f"engine {engine} needs an NVIDIA GPU: no driver here; run `make gpu`"):
            open_with(onnx, engine)


@pytest.mark.parametrize(
    ("packages", "model", "picked"),
    [
        ({"pycuda", "tensorrt", "tensorrt_rtx", "torch"}, "tiny", "tensorrt"),
        ({"pycuda", "tensorrt_rtx", "torch"}, "tiny", "tensorrt-rtx"),
        ({"pycuda", "torch"}, "tiny", "torch"),
        ({"pycuda", "torch"}, "a.onnx", None),
        ({"pycuda"}, "tiny", None),
        ({"tensorrt"}, "tiny", None),
    ],
)
def test_auto_takes_the_best_that_is_installed(installed, packages, model, picked):
    installed |= packages
    engine, why = models._pick(model)
    assert engine == picked
    assert "NVIDIA Test" in why
    assert ("make gpu" in why) == (picked in (None, "torch"))


def test_tensorrt_rtx_is_not_picked_for_a_gpu_it_is_not_made_for(installed, monkeypatch):
    installed |= {"pycuda", "tensorrt_rtx"}
    monkeypatch.setattr(models, "find_gpu", lambda index: (Gpu("H", (9, 0), 1, (13, 0)), "H"))
    assert models._pick("tiny")[0] is None


def test_a_gpu_that_fails_leaves_auto_on_the_cpu(onnx, monkeypatch):
    monkeypatch.setattr(models, "_pick", lambda model, index: ("tensorrt", "a GPU"))

    def fails(*_: object) -> None:
        raise EngineError("the driver is too old")

    monkeypatch.setattr(models, "_on_gpu", fails)
    step = open_with(onnx)
    assert step.engine in ("openvino", "onnxruntime")
    assert "tensorrt was tried: the driver is too old" in step.about
    step.close()


def test_a_missing_package_is_named(installed, onnx):
    with pytest.raises(EngineError, match="engine tensorrt needs pycuda, which is not installed; run `make gpu`"):
        open_with(onnx, "tensorrt")
    with pytest.raises(EngineError, match="w32-512 has to be exported to ONNX first, which needs torch and onnx"):
        open_with("w32-512", "onnxruntime")


def test_an_unknown_name_lists_the_known():
    with pytest.raises(
        ValueError, match=r"no model is called 'huge'; expected a file, or one of tiny, small, w32-512, "
    ):
        open_with("huge")
    with pytest.raises(ModelError, match=r"model huge\.onnx does not exist"):
        open_with("huge.onnx")
    with pytest.raises(ValueError, match=r"engine is 'cuda'; expected one of auto, "):
        open_with("tiny", "cuda")


@pytest.mark.parametrize("size", [0, -64, 100, 63])
def test_a_size_that_no_network_takes_is_refused(onnx, size):
    with pytest.raises(ValueError, match=f"size is {size}; expected a positive multiple of 64"):
        open_with(onnx, size=size)


@pytest.mark.parametrize("asked", [{"size": 256}, {"flip": True}, {"batch": 2}], ids=str)
@pytest.mark.parametrize("engine", ["onnxruntime", "tensorrt", "auto"])
def test_a_fixed_model_says_how_to_rebuild_it(tmp_path, installed, monkeypatch, engine, asked):
    installed |= {"pycuda", "tensorrt"}
    monkeypatch.setitem(sys.modules, "tensorrt", ModuleType("tensorrt"))
    path = write_blob_model(tmp_path / "fixed.onnx", blob_spec(fixed_hw=(128, 192)))
    with pytest.raises(
        ValueError, match=r"fixed to 1x3x128x192 and cannot do --.*; export it without --fixed"
    ) as refused:
        open_with(path, engine, **asked)
    assert f"--{next(iter(asked))};" in str(refused.value)


def test_a_model_is_exported_once(tmp_path, monkeypatch):
    """The exported file's name contains a digest of the weights, so that the same weights are exported only once."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    exported: list[bool] = []

    def export_checkpoint(model, out, *, fp16):
        exported.append(fp16)
        out.parent.mkdir(parents=True, exist_ok=True)
        return write_blob_model(out, ModelSpec(name="mine", precision="fp16" if fp16 else "fp32"))

    to_onnx = pytest.importorskip("export.to_onnx")
    monkeypatch.setattr(to_onnx, "export_checkpoint", export_checkpoint)
    weights = tmp_path / "mine.pth"
    weights.write_bytes(b"first")
    reported: list[str] = []
    for content in (b"first", b"first", b"second"):
        weights.write_bytes(content)
        step = open_step(str(weights), StepOptions(engine="onnxruntime"), lambda what, share: reported.append(what))
        assert step.spec.name == "mine"
        step.close()
    assert exported == [False, False]
    assert reported == [f"exporting {weights} to ONNX"] * 2


def test_a_plan_goes_to_the_tensorrt_it_was_built_by(tmp_path, no_gpu):
    plan = tmp_path / "a.plan"
    plan.write_bytes(b"no plan")
    with pytest.raises(EngineError, match=r"a\.plan"):  # it has no sidecar
        open_with(plan)
