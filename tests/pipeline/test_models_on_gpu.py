"""open_step with a simulated GPU: the engines that it tries, their order, and the fallback after a failure."""

from __future__ import annotations

import sys

import pytest

import kernels.cuda  # noqa: F401  # before find_spec is replaced: numba-cuda asks it where numba is
from core.errors import EngineError, ModelError
from engine.gpu import find_gpu
from engine.shapes import ShapeRange
from pipeline import models
from pipeline.device_step import DeviceStep
from pipeline.models import StepOptions, open_step
from tests.engine.fake_pycuda import FakeDriver, OutOfMemoryError
from tests.engine.tensorrt.fake_tensorrt import PORTABLE, FakeTensorRT, written
from tests.pipeline.onnx_models import blob_spec
from tests.pipeline.test_models import GPU, installed, no_gpu, onnx, open_with

__all__ = ["installed", "no_gpu", "onnx"]  # fixtures


class Failing:
    """A step whose first frame fails."""

    def __init__(self, error):
        self.error, self.closed, self.warmed = error, 0, []

    def warm_up(self, frame_wh):
        self.warmed.append(frame_wh)
        raise self.error

    def close(self):
        self.closed += 1


@pytest.mark.parametrize("frame_wh", [(1280, 720), None])
def test_a_gpu_that_fails_at_its_first_frame_leaves_auto_on_the_cpu(onnx, monkeypatch, frame_wh):
    """Plans are built and kernels compiled at the first frame, since its shape is not known before."""
    failing = Failing(EngineError("TensorRT could not build it"))
    monkeypatch.setattr(models, "_pick", lambda model, index: ("tensorrt", "a GPU"))
    monkeypatch.setattr(models, "_on_gpu", lambda *_: failing)
    step = open_step(str(onnx), StepOptions(frame_wh=frame_wh))
    assert "tensorrt was tried: TensorRT could not build it" in step.about
    assert failing.warmed == [frame_wh or (640, 480)]
    assert failing.closed == 1
    step.close()


def test_what_the_user_did_wrong_is_not_answered_by_the_cpu(onnx, monkeypatch):
    failing = Failing(ModelError("not a network"))
    monkeypatch.setattr(models, "_pick", lambda model, index: ("tensorrt", "a GPU"))
    monkeypatch.setattr(models, "_on_gpu", lambda *_: failing)
    with pytest.raises(ModelError, match="not a network"):
        open_with(onnx)
    assert failing.closed == 1


@pytest.fixture
def rtx_stand_in(monkeypatch, tmp_path, installed):
    """Simulates an installed TensorRT-RTX and a GPU; every plan that is requested exists."""
    driver = FakeDriver()
    driver.install(monkeypatch)
    fake = FakeTensorRT(driver, rtx=True)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", fake)
    monkeypatch.setattr("engine.tensorrt.plan.find_gpu", lambda index: (None, "not asked"))
    shapes = ShapeRange.static((1, 128, 192))  # of a frame of 640x480
    plan = written(tmp_path / "x.plan", **PORTABLE, spec=blob_spec(precision="fp16"), shapes=shapes)
    monkeypatch.setattr("engine.tensorrt.plan_cache.cached_plan", lambda *_, **__: plan)
    installed |= {"pycuda", "tensorrt_rtx"}
    return driver


@pytest.mark.skipif(find_gpu()[0] is not None, reason="the kernels run there")
def test_kernels_that_do_not_run_here_leave_auto_on_the_cpu_and_nothing_on_the_gpu(onnx, rtx_stand_in):
    """The engine opens, then numba fails with its own error type."""
    step = open_with(onnx)
    assert step.engine in ("openvino", "onnxruntime")
    assert "tensorrt-rtx was tried: the first frame failed: Cuda" in step.about
    step.close()
    step = open_with(onnx, "tensorrt-rtx")
    with pytest.raises(EngineError, match="the first frame failed: Cuda"):
        step.warm_up((640, 480))
    step.close()
    assert rtx_stand_in.retained == 0
    assert not rtx_stand_in.live


class Missing:
    """The kernels, as where the driver is too old for numba."""

    def __getattr__(self, name):
        raise RuntimeError("numba needs\n another driver")


@pytest.mark.parametrize("fails", ["context", "memory", "stream", "event", "kernels"])
def test_a_gpu_that_cannot_be_opened_leaves_auto_on_the_cpu_and_nothing_on_the_gpu(
    onnx, rtx_stand_in, monkeypatch, fails
):
    def full(*_, **__):
        raise OutOfMemoryError("the driver failed: out of memory")

    if fails == "context":
        monkeypatch.setattr(rtx_stand_in.Device, "retain_primary_context", full)
    elif fails == "kernels":
        monkeypatch.setitem(sys.modules, "kernels.cuda", Missing())
        monkeypatch.setattr("kernels.cuda", Missing())
    else:
        name = {"memory": "pagelocked_empty", "stream": "Stream", "event": "Event"}[fails]
        monkeypatch.setattr(rtx_stand_in, name, full)
    words = "numba needs another driver" if fails == "kernels" else "the driver failed: out of memory; "
    step = open_with(onnx)
    assert step.engine in ("openvino", "onnxruntime")
    assert "tensorrt-rtx was tried: " in step.about
    assert words in step.about
    assert "\n" not in step.about
    step.close()
    with pytest.raises(EngineError, match=words):
        open_with(onnx, "tensorrt-rtx")
    assert rtx_stand_in.retained == 0
    assert not rtx_stand_in.live


def test_a_dynamic_plan_is_read_once_for_all_its_shapes(tmp_path, rtx_stand_in, monkeypatch):
    shapes = ShapeRange.parse("1x64x64:1x64x128:2x128x128")
    plan = written(tmp_path / "dynamic.plan", **PORTABLE, spec=blob_spec(precision="fp16"), shapes=shapes)
    step = open_with(plan)
    assert isinstance(step, DeviceStep)
    with step.device.current():
        networks = [step.network_for(shape) for shape in ((1, 64, 64), (1, 64, 128), (2, 128, 128))]
        assert sys.modules["tensorrt_rtx"].deserialised == 1
        for network in networks:
            network.close()
    step.close()
    assert not rtx_stand_in.live


@pytest.mark.parametrize(
    ("shapes", "asked", "words"),
    [
        ("1x128x192", {"flip": True}, "got --batch 1 with --flip, which is N = 2;"),
        ("1x128x192", {"batch": 2}, "got --batch 2, which is N = 2;"),
        ("1x64x64:1x64x128:3x128x128", {"flip": True, "batch": 2}, "got --batch 2 with --flip, which is N = 4;"),
        ("2x128x192", {}, "got --batch 1, which is N = 1;"),
        ("1x128x192", {"size": 256}, "cannot do --size"),
    ],
)
def test_a_plan_that_is_built_for_other_inputs_is_refused_when_it_is_opened(
    tmp_path, rtx_stand_in, shapes, asked, words
):
    plan = written(tmp_path / "a.plan", **PORTABLE, spec=blob_spec(precision="fp16"), shapes=ShapeRange.parse(shapes))
    with pytest.raises(ValueError, match=words):
        open_with(plan, **asked)
    assert rtx_stand_in.retained == 0


def test_what_is_not_installed_is_said_before_anything_is_exported(installed, onnx, monkeypatch):
    installed |= {"pycuda", "tensorrt_rtx"}
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setattr(models, "onnx_file", lambda *_, **__: pytest.fail("it was exported"))
    message = r"tensorrt cannot be loaded .*; pip install tensorrt; or use --engine tensorrt-rtx, which is installed"
    with pytest.raises(EngineError, match=message):
        open_with("w32-512", "tensorrt")
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(EngineError, match="finds no GPU; expected a CUDA build"):
        open_with("w32-512", "torch")


def test_the_gpu_that_was_asked_for_is_the_one_that_runs(onnx, rtx_stand_in, monkeypatch):
    asked = []

    def find(index):
        asked.append(index)
        return GPU, str(GPU)

    monkeypatch.setattr(models, "find_gpu", find)
    rtx_stand_in.gpus = 3
    step = open_with(onnx, "tensorrt-rtx", gpu=2)
    assert asked == [2]
    assert step.device.index == 2
    step.close()


def test_a_gpu_that_was_asked_for_by_number_is_not_replaced(onnx, no_gpu):
    with pytest.raises(EngineError, match="--gpu 1 cannot be used: no driver here; omit it to run on the CPU"):
        open_with(onnx, gpu=1)
    with pytest.raises(ValueError, match="--gpu 1 is for an NVIDIA GPU, got --engine onnxruntime"):
        open_with(onnx, "onnxruntime", gpu=1)
