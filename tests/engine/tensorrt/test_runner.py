"""TensorRTRunner without a GPU: the order of its calls on a stand-in for TensorRT; what is missing, on the real one."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import replace
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from benchmarks.forward import forward
from core.errors import EngineError, EngineMismatch
from core.spec import ModelSpec
from engine.device import Device
from engine.gpu import find_gpu
from engine.runner import tensors_of
from engine.shapes import ShapeRange
from engine.tensorrt.plan_cache import build_plan
from engine.tensorrt.runner import TensorRTRunner
from engine.tensorrt.sidecar import Sidecar, read_sidecar, sidecar_path, write_plan
from tests.engine.fake_pycuda import FakeDriver

SPEC = ModelSpec(name="small", precision="fp16", short_side=128)
SHAPES = ShapeRange((1, 64, 64), (1, 64, 128), (2, 128, 128))


class FakeTensorRT(ModuleType):
    """Notes what is called; "runs" a network whose outputs are the mean of its input."""

    __version__ = "10.0"

    def __init__(self, driver, spec=SPEC):
        super().__init__("tensorrt")
        self.calls: list[tuple] = []
        self.loads = self.has_memory = self.runs = True
        self.types = {"image": spec.input_dtype, "heatmaps": "float32", "tags": "float32"}
        self.DataType = SimpleNamespace(HALF="float16", FLOAT="float32")
        self.TensorIOMode = SimpleNamespace(INPUT="in", OUTPUT="out")
        fake = self

        class ILogger:
            Severity = SimpleNamespace(INTERNAL_ERROR=0, ERROR=1, WARNING=2, INFO=3, VERBOSE=4)

        class Context:
            def __init__(self):
                self.shape, self.addresses = (0, 0, 0, 0), {}

            def set_input_shape(self, name, shape):
                fake.calls.append(("shape", name, shape))
                self.shape = shape
                return True

            def get_tensor_shape(self, name):
                n, _, h, w = self.shape
                return tensors_of(spec, (n, h, w))[name][0]

            def set_tensor_address(self, name, address):
                fake.calls.append(("address", name))
                self.addresses[name] = address
                return True

            def execute_async_v3(self, stream):
                driver.need_context("execute_async_v3")
                fake.calls.append(("run", stream))
                image = driver.memory[self.addresses["image"]].view(np.float16)
                for name in ("heatmaps", "tags"):
                    driver.memory[self.addresses[name]].view(np.float32)[:] = image.astype(np.float32).mean()
                return fake.runs

        class Engine:
            @property
            def num_io_tensors(self):
                return len(fake.types)

            def get_tensor_name(self, index):
                return list(fake.types)[index]

            def get_tensor_mode(self, name):
                return "in" if name == "image" else "out"

            def get_tensor_dtype(self, name):
                return fake.types[name]

            def create_execution_context(self):
                return Context() if fake.has_memory else None

        class Runtime:
            def __init__(self, log):
                self.log = log

            def deserialize_cuda_engine(self, plan):
                driver.need_context("deserialize_cuda_engine")
                assert plan == b"plan"
                if not fake.loads:
                    self.log.log(1, "CUDA driver version\n is insufficient")
                return Engine() if fake.loads else None

        self.ILogger, self.Runtime = ILogger, Runtime


@pytest.fixture
def driver(monkeypatch):
    fake = FakeDriver()
    fake.install(monkeypatch)
    monkeypatch.setattr("engine.tensorrt.runner.find_gpu", lambda: (None, "not asked"))
    return fake


@pytest.fixture
def trt(driver, monkeypatch):
    fake = FakeTensorRT(driver)
    monkeypatch.setitem(sys.modules, "tensorrt", fake)
    return fake


@pytest.fixture
def plan(tmp_path):
    sidecar = Sidecar(
        flavor="tensorrt",
        version="10.0",
        gpu="Fake GPU",
        compute_capability="9.0",
        onnx="small.onnx",
        onnx_sha256="",
        plan_sha256=hashlib.sha256(b"plan").hexdigest(),
        shapes=SHAPES,
        spec=SPEC,
        built_at="",
    )
    path = tmp_path / "small.plan"
    write_plan(path, b"plan", sidecar)
    return path


def test_a_forward_pass(plan, trt, driver):
    images = np.full((1, 3, 64, 128), 0.5, np.float16)
    with Device() as device, TensorRTRunner(plan, device=device) as runner:
        assert (runner.engine, runner.spec) == ("tensorrt", SPEC)
        for _ in range(2):
            heatmaps, tags = forward(runner, device, images)
        assert (heatmaps.shape, tags.shape) == ((1, 17, 32, 64), (1, 17, 16, 32))
        assert heatmaps.dtype == tags.dtype == np.float32
        assert (heatmaps == 0.5).all()
        assert (tags == 0.5).all()
    # Shape and addresses are set once, before the first run.
    assert trt.calls == [
        ("shape", "image", (1, 3, 64, 128)),
        *(("address", name) for name in ("image", "heatmaps", "tags")),
        ("run", 77),
        ("run", 78),
    ]
    assert not driver.live
    assert driver.retained == 0


def test_another_shape_takes_other_memory_and_gives_the_old_back(plan, trt, driver):
    with TensorRTRunner(plan) as runner:
        runner.bind((1, 64, 64))
        before = len(driver.live)
        runner.bind((2, 128, 128))
        assert len(driver.live) == before
        assert runner.arrays["heatmaps"].shape == (2, 17, 64, 64)
    assert not driver.live


def test_a_shared_device_stays_open(plan, trt, driver):
    with Device() as device:
        runner = TensorRTRunner(plan, device=device)
        runner.bind((1, 64, 64))
        runner.close()
        runner.close()
        assert not driver.live
        with device.current():
            device.empty((1,), np.uint8)


def test_an_input_the_plan_does_not_take(plan, trt):
    with (
        TensorRTRunner(plan) as runner,
        pytest.raises(EngineMismatch, match="got 4x64x64; build another: python -m"),
    ):
        runner.bind((4, 64, 64))


def test_what_tensorrt_refuses_is_one_line_and_leaves_nothing(plan, trt, driver):
    trt.loads = False
    with pytest.raises(EngineError, match=r"tensorrt cannot load .*: CUDA driver version is insufficient; a GPU"):
        TensorRTRunner(plan)
    trt.loads, trt.has_memory = True, False
    with pytest.raises(EngineError, match="is the GPU's memory full"):
        TensorRTRunner(plan)
    trt.has_memory, trt.types = True, {"input": "float32", "output": "float32"}
    with pytest.raises(EngineMismatch, match="has the tensors input, output, which are not those of small"):
        TensorRTRunner(plan)
    assert not driver.live
    assert driver.retained == 0


def test_types_must_be_the_specs(plan, trt):
    trt.types["image"] = "float32"
    with pytest.raises(EngineMismatch, match=r"rebuild it: python -m engine small.onnx"):
        TensorRTRunner(plan)


def test_a_pass_that_fails_and_a_closed_runner_are_errors(plan, trt):
    images = np.zeros((1, 3, 64, 64), np.float16)
    with Device() as device:
        with TensorRTRunner(plan, device=device) as runner:
            trt.runs = False
            with pytest.raises(EngineError, match=r"could not run .*TensorRT gave no reason"):
                forward(runner, device, images)
        with pytest.raises(EngineError, match="closed"):
            forward(runner, device, images)


def test_another_version_is_refused_before_a_gpu_is_touched(plan, trt, driver):
    trt.__version__ = "11.0"
    with pytest.raises(EngineMismatch, match=r"built by tensorrt 10\.0, this is tensorrt 11\.0; rebuild it"):
        TensorRTRunner(plan)
    assert not driver.log


DAMAGES = {
    "noise": lambda content: np.random.default_rng(0).bytes(5000),
    "empty": lambda content: b"",
    "cut": lambda content: content[: len(content) // 2],
    "flipped": lambda content: content[:1000] + bytes(255 - byte for byte in content[1000:2000]) + content[2000:],
}


@pytest.fixture
def rtx_plan(small_onnx, tmp_path):
    pytest.importorskip("tensorrt_rtx")
    return build_plan(small_onnx, tmp_path / "rtx.plan", flavor="tensorrt-rtx", shapes=(1, 64, 64))


@pytest.mark.skipif(find_gpu()[0] is not None, reason="says what happens without a GPU")
def test_a_real_plan_without_a_driver_says_what_is_needed(rtx_plan, driver):
    with pytest.raises(EngineError, match=r"tensorrt-rtx cannot load .*; a GPU and its driver are needed") as caught:
        TensorRTRunner(rtx_plan)
    assert "\n" not in str(caught.value)


def test_without_pycuda_it_says_so(rtx_plan, monkeypatch):
    monkeypatch.setitem(sys.modules, "pycuda", None)
    with pytest.raises(EngineError, match="pycuda cannot be loaded"):
        TensorRTRunner(rtx_plan)


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_plans_never_reach_tensorrt(damage, rtx_plan, driver):
    rtx_plan.write_bytes(DAMAGES[damage](rtx_plan.read_bytes()))
    with pytest.raises(EngineError, match=r"is damaged: .*rebuild it: python -m engine"):
        TensorRTRunner(rtx_plan)
    assert not driver.log


@pytest.mark.skipif(find_gpu()[0] is not None, reason="what TensorRT answers differs where it can run")
@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_plans_do_not_crash_tensorrt_either(damage, rtx_plan, driver):
    """As if someone had damaged the plan and then made the sidecar fit."""
    content = DAMAGES[damage](rtx_plan.read_bytes())
    sidecar = replace(read_sidecar(rtx_plan), plan_sha256=hashlib.sha256(content).hexdigest())
    write_plan(rtx_plan, content, sidecar)
    with pytest.raises(EngineError, match="cannot load"):
        TensorRTRunner(rtx_plan)
    assert sidecar_path(rtx_plan).is_file()
