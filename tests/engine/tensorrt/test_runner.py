"""TensorRTRunner without a GPU: the order of its calls on a stand-in for TensorRT; what is missing, on the real one."""

from __future__ import annotations

import hashlib
import sys
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.forward import forward
from core.errors import EngineError, EngineMismatch
from engine.device import Device
from engine.gpu import find_gpu
from engine.shapes import ShapeRange
from engine.tensorrt.plan import OpenPlan
from engine.tensorrt.plan_cache import build_plan
from engine.tensorrt.runner import TensorRTRunner
from engine.tensorrt.sidecar import read_sidecar, sidecar_path, write_plan
from tests.engine.fake_pycuda import FakeDriver
from tests.engine.tensorrt.fake_tensorrt import PORTABLE, SCRATCH_BYTES, SHAPES, SPEC, FakeTensorRT, written


@pytest.fixture
def driver(monkeypatch):
    fake = FakeDriver()
    fake.install(monkeypatch)
    monkeypatch.setattr("engine.tensorrt.plan.find_gpu", lambda index: (None, "not asked"))
    return fake


@pytest.fixture
def trt(driver, monkeypatch):
    fake = FakeTensorRT(driver)
    monkeypatch.setitem(sys.modules, "tensorrt", fake)
    return fake


@pytest.fixture
def rtx(driver, monkeypatch):
    fake = FakeTensorRT(driver, rtx=True)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", fake)
    return fake


@contextmanager
def opened(plan):
    with Device() as device, TensorRTRunner(plan, device) as runner:
        yield runner


def open_and_close(plan):
    with opened(plan):
        pass


@pytest.fixture
def plan(tmp_path):
    return written(tmp_path / "small.plan")


@pytest.fixture
def portable(tmp_path):
    """A TensorRT-RTX plan of one shape."""
    return written(tmp_path / "small.plan", **PORTABLE, shapes=ShapeRange.static((1, 64, 128)))


def test_a_forward_pass(plan, trt, driver):
    images = np.full((1, 3, 64, 128), 0.5, np.float16)
    with Device() as device, TensorRTRunner(plan, device) as runner:
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


def test_an_output_of_another_shape_than_the_specs_is_refused(plan, trt, driver):
    trt.shapes["heatmaps"] = (1, 17, 16, 16)
    with (
        opened(plan) as runner,
        pytest.raises(EngineMismatch, match=r"gives heatmaps as \(1, 17, 16, 16\), expected \(1, 17, 32, 32\)"),
    ):
        runner.bind((1, 64, 64))
    assert not driver.live


@pytest.mark.parametrize("setter", ["set_input_shape", "set_tensor_address tags"])
def test_a_setter_that_says_no_is_an_error(plan, trt, driver, setter):
    trt.refuses.add(setter)
    with opened(plan) as runner, pytest.raises(EngineError, match=r"TensorRT could not take the .* of "):
        runner.bind((1, 64, 64))
    assert not driver.live


def test_tensorrt_rtx_works_in_memory_that_is_given_to_it(portable, rtx, driver):
    """What it allocated by itself during a pass would break the capture of a graph."""
    with Device() as device, TensorRTRunner(portable, device) as runner, device.current():
        runner.bind((1, 64, 128))
        stream = device.stream()
        runner.enqueue(stream)
        assert runner.capture_problem(stream) is None
        device.own(stream.capture(lambda: runner.enqueue(stream))).launch(stream)
    assert ("memory", SCRATCH_BYTES) in rtx.calls
    assert not driver.live
    assert rtx.contexts == 0


def test_tensorrt_rtx_is_asked_whether_it_can_be_captured(portable, rtx):
    rtx.capturable = False
    with Device() as device, TensorRTRunner(portable, device) as runner, device.current():
        runner.bind((1, 64, 128))
        problem = runner.capture_problem(device.stream())
    assert problem is not None
    assert "is not stream capturable; rebuild it: python -m engine small.onnx --flavor tensorrt-rtx" in problem


@pytest.mark.parametrize(
    ("shapes", "strategy"), [(SHAPES, "eager"), (ShapeRange.static((1, 64, 128)), "lazy")], ids=["dynamic", "static"]
)
def test_a_graph_of_a_dynamic_plan_holds_no_stand_in_kernels(shapes, strategy, rtx, driver, tmp_path):
    path = written(tmp_path / "x.plan", **PORTABLE, shapes=shapes)
    with opened(path) as runner:
        config = runner._open_context().config
        assert config.dynamic_shapes_kernel_specialization_strategy == strategy
        assert config.cuda_graph_strategy == "disabled"


def test_a_dynamic_plan_is_deserialised_once_for_all_shapes(plan, trt, driver):
    with Device() as device:
        shared = OpenPlan(plan, device)
        runners = [TensorRTRunner(shared, device) for _ in range(3)]
        for runner, shape in zip(runners, [(1, 64, 64), (1, 64, 128), (2, 128, 128)], strict=True):
            runner.bind(shape)
        assert trt.deserialised == 1
        assert trt.contexts == 3
        for runner in runners:
            runner.close()
        assert trt.contexts == 0
        TensorRTRunner(shared, device).close()  # the plan stays open until its device closes
    assert trt.deserialised == 1
    assert not driver.live


def test_all_runtimes_of_a_process_get_one_logger(plan, trt):
    for _ in range(3):
        open_and_close(plan)
    assert len(trt.loggers) == 1


def test_an_error_of_before_is_not_the_reason_of_now(plan, trt):
    trt.loads = False
    with pytest.raises(EngineError, match="CUDA driver version"):
        open_and_close(plan)
    trt.loads, trt.has_memory = True, False
    with pytest.raises(EngineError, match="TensorRT gave no reason; is the GPU's memory full"):
        open_and_close(plan)


def test_another_shape_takes_other_memory_and_gives_the_old_back(plan, trt, driver):
    with opened(plan) as runner:
        runner.bind((1, 64, 64))
        before = len(driver.live)
        runner.bind((2, 128, 128))
        assert len(driver.live) == before
        assert runner.arrays["heatmaps"].shape == (2, 17, 64, 64)
    assert not driver.live


def test_a_shared_device_stays_open(plan, trt, driver):
    with Device() as device:
        runner = TensorRTRunner(plan, device)
        runner.bind((1, 64, 64))
        runner.close()
        runner.close()
        assert not driver.live
        with device.current():
            device.empty((1,), np.uint8)


def test_an_input_the_plan_does_not_take(plan, trt):
    with (
        opened(plan) as runner,
        pytest.raises(EngineMismatch, match="got 4x64x64; build another: python -m"),
    ):
        runner.bind((4, 64, 64))


def test_what_tensorrt_refuses_is_one_line_and_leaves_nothing(plan, trt, driver):
    trt.loads = False
    with pytest.raises(EngineError, match=r"tensorrt cannot load .*: CUDA driver version is insufficient; a GPU"):
        open_and_close(plan)
    trt.loads, trt.has_memory = True, False
    with pytest.raises(EngineError, match="is the GPU's memory full"):
        open_and_close(plan)
    trt.has_memory, trt.types = True, {"input": "float32", "output": "float32"}
    with pytest.raises(EngineMismatch, match="has the tensors input, output, which are not those of small"):
        open_and_close(plan)
    assert not driver.live
    assert driver.retained == 0


def test_types_must_be_the_specs(plan, trt):
    trt.types["image"] = "float32"
    with pytest.raises(EngineMismatch, match=r"rebuild it: python -m engine small.onnx"):
        open_and_close(plan)


def test_a_pass_that_fails_and_a_closed_runner_are_errors(plan, trt):
    images = np.zeros((1, 3, 64, 64), np.float16)
    with Device() as device:
        with TensorRTRunner(plan, device) as runner:
            trt.runs = False
            with pytest.raises(EngineError, match=r"could not run .*TensorRT gave no reason"):
                forward(runner, device, images)
        with pytest.raises(EngineError, match="closed"):
            forward(runner, device, images)


def test_another_version_is_refused_before_a_gpu_is_touched(plan, trt, driver):
    trt.__version__ = "11.0"
    with pytest.raises(EngineMismatch, match=r"built by tensorrt 10\.0, this is tensorrt 11\.0; rebuild it"):
        open_and_close(plan)
    assert driver.log == ["init", "synchronize"]  # a device was opened and closed


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
        open_and_close(rtx_plan)
    assert "\n" not in str(caught.value)


def test_without_pycuda_it_says_so(rtx_plan, monkeypatch):
    monkeypatch.setitem(sys.modules, "pycuda", None)
    with pytest.raises(EngineError, match="pycuda cannot be loaded"):
        open_and_close(rtx_plan)


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_plans_never_reach_tensorrt(damage, rtx_plan, driver):
    rtx_plan.write_bytes(DAMAGES[damage](rtx_plan.read_bytes()))
    with pytest.raises(EngineError, match=r"is damaged: .*rebuild it: python -m engine"):
        open_and_close(rtx_plan)
    assert driver.log == ["init", "synchronize"]  # a device was opened and closed


@pytest.mark.skipif(find_gpu()[0] is not None, reason="what TensorRT answers differs where it can run")
@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_plans_do_not_crash_tensorrt_either(damage, rtx_plan, driver):
    """As if someone had damaged the plan and then made the sidecar fit."""
    content = DAMAGES[damage](rtx_plan.read_bytes())
    sidecar = replace(read_sidecar(rtx_plan), plan_sha256=hashlib.sha256(content).hexdigest())
    write_plan(rtx_plan, content, sidecar)
    with pytest.raises(EngineError, match="cannot load"):
        open_and_close(rtx_plan)
    assert sidecar_path(rtx_plan).is_file()
