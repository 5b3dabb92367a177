"""DeviceStep's CUDA graphs: the real engine.device on a stand-in for the driver, which forbids what CUDA forbids."""

from __future__ import annotations

import logging
import threading
import time

import numpy as np
import pytest

from core.errors import StageError
from engine.device import Device
from pipeline.device_timing import TIMED_PASSES
from pipeline.pose import PosePipeline
from tests.engine.fake_pycuda import Error, FakeDriver
from tests.pipeline.fake_device import FakeKernels, make_device_step
from tests.pipeline.test_device_step import Pictures, numbers


class Kernels:
    """As fake_device.FakeKernels, on the driver's memory. Making a workspace waits for the device, as the real one."""

    def __init__(self, driver, device):
        self.driver, self.device, self.workspaces = driver, device, 0

    packed_size = staticmethod(FakeKernels.packed_size)
    unpack_people = staticmethod(FakeKernels.unpack_people)

    def Workspace(self, shape, options, *, dtype, tag_dims):
        assert tag_dims == 1
        return Workspace(self, options.max_people, shape[2])

    def preprocess(self, frame, out, *, stream, mirror, **geometry):
        source, target = self.values(frame), self.values(out)
        self.driver.put(stream, lambda: target.fill(source[0]))

    def decode(self, heatmaps, tags, *, workspace, stream):
        value = self.values(heatmaps)
        keypoints, scores, count = self.unpack_people(self.values(workspace.packed), workspace.shape)

        def run():
            keypoints[0, 0, 0] = (1, 1, 0.5)
            scores[0, 0], count[0] = value[0] / 255, 1

        self.driver.put(stream, run)

    def values(self, array):
        return self.driver.memory[array.pointer].view(array.dtype)


class Workspace:
    def __init__(self, kernels, people, joints):
        self.kernels = kernels
        kernels.driver.Context.synchronize()
        self.shape = 1, people, joints
        self.packed = kernels.device.empty((kernels.packed_size(*self.shape),), np.float32)
        kernels.workspaces += 1

    def close(self):
        self.kernels.driver.Context.synchronize()
        self.kernels.device.free(self.packed)
        self.kernels.workspaces -= 1


class Network:
    """Its heatmaps are the first value of the input. As PyTorch it searches for plans once a thread, which waits.

    fails_under_capture: what it then raises. refuses: what it says of captures.
    """

    def __init__(self, driver, device, nhw, *, fails_under_capture=None, refuses=None):
        n, h, w = nhw
        self.driver, self.device, self.fails, self.refuses = driver, device, fails_under_capture, refuses
        self.plans = threading.local()
        self.passes = 0  # launched or captured
        self.arrays = {
            "image": device.empty((n, 3, h, w), np.float32),
            "heatmaps": device.empty((n, 17, h // 2, w // 2), np.float32),
            "tags": device.empty((n, 17, h // 4, w // 4), np.float32),
        }

    def enqueue(self, stream):
        self.passes += 1
        if not hasattr(self.plans, "chosen"):
            self.driver.Context.synchronize()
            self.plans.chosen = True
        if stream.handle in self.driver.captures:
            time.sleep(0.005)  # time for another thread to do what CUDA forbids meanwhile
            if self.fails is not None:
                raise self.fails
        image, heatmaps = (self.driver.memory[self.arrays[name].pointer] for name in ("image", "heatmaps"))
        self.driver.put(stream.handle, lambda: heatmaps.view(np.float32).fill(image.view(np.float32)[0]))

    def capture_problem(self, stream):
        return self.refuses

    def close(self):
        self.device.free(*self.arrays.values())


@pytest.fixture
def driver(monkeypatch):
    fake = FakeDriver()
    fake.install(monkeypatch)
    return fake


def make_step(driver, networks=None, **of_network):
    device = Device()
    return make_device_step(
        device,
        lambda nhw: Network(driver, device, nhw, **of_network),
        Kernels(driver, device),
        networks=networks,
    )


def launches(driver):
    return sum(driver.bindings.executables.values())


def test_frames_come_from_graphs_and_nothing_is_left(driver, caplog):
    with PosePipeline(step=make_step(driver)) as pose:
        assert numbers(pose.run(Pictures([(80, 64)] * 20))) == list(range(1, 21))
        assert len(driver.bindings.graphs) == 3  # one a slot
        assert launches(driver) == 19
    assert not caplog.records
    assert not driver.bindings.graphs
    assert not driver.live
    assert driver.retained == 0


def test_what_one_thread_has_run_another_runs_again_before_it_captures(driver, caplog):
    """Every run has its own thread; the first one below leaves slots whose graphs the second one captures."""
    with PosePipeline(step=make_step(driver)) as pose:
        for frames in (2, 9):
            assert numbers(pose.run(Pictures([(80, 64)] * frames))) == list(range(1, frames + 1))
        assert len(driver.bindings.graphs) == 3
    assert not caplog.records


def test_warm_graphs_serve_every_thread(driver, caplog):
    networks: list[Network] = []
    step = make_step(driver, networks)
    with PosePipeline(step=step) as pose:
        pose.warm_up((80, 64))
        warm = networks[0].passes
        assert len(driver.bindings.graphs) == 3
        assert numbers(pose.run(Pictures([(80, 64)] * 9))) == list(range(1, 10))
        assert networks[0].passes == warm  # all nine were graphs
    assert not caplog.records


def test_a_warm_up_after_a_short_run_still_leaves_every_slot_a_graph(driver):
    with PosePipeline(step=make_step(driver)) as pose:
        assert numbers(pose.run(Pictures([(80, 64)] * 2))) == [1, 2]
        pose.warm_up((80, 64))
        assert len(driver.bindings.graphs) == 3


LIBRARIES = {
    "torch": RuntimeError("CUDA error: operation not permitted when stream is capturing"),
    "numba": type("CudaAPIError", (Exception,), {})("[900] Call to cuLaunchKernel results in CUDA_ERROR"),
    "pycuda": Error("cuMemcpyDtoHAsync failed"),
}


@pytest.mark.parametrize("library", LIBRARIES)
def test_whatever_a_library_raises_under_capture_plain_launches_follow_and_it_is_said_once(driver, caplog, library):
    step = make_step(driver, fails_under_capture=LIBRARIES[library])
    with caplog.at_level(logging.WARNING), PosePipeline(step=step) as pose:
        assert numbers(pose.run(Pictures([(80, 64)] * 9))) == list(range(1, 10))
        assert numbers(pose.run(Pictures([(80, 64)] * 9))) == list(range(1, 10))
        assert not driver.bindings.graphs
    assert caplog.text.count("kernel by kernel") == 1
    assert str(LIBRARIES[library]) in caplog.text


def test_a_network_that_cannot_be_captured_is_not_tried(driver, caplog):
    step = make_step(driver, refuses="TensorRT-RTX says no", fails_under_capture=AssertionError("it was tried"))
    with caplog.at_level(logging.WARNING), PosePipeline(step=step) as pose:
        assert numbers(pose.run(Pictures([(80, 64)] * 9))) == list(range(1, 10))
    assert caplog.text.count("kernel by kernel, which is slower: TensorRT-RTX says no") == 1


@pytest.mark.parametrize("fails", ["network", "capture"])
def test_a_shape_that_cannot_be_captured_leaves_the_others_their_graphs(driver, caplog, fails):
    device = Device()
    failure = {"refuses": "not this shape"} if fails == "network" else {"fails_under_capture": Error("not this shape")}

    def network_for(nhw):
        return Network(driver, device, nhw, **(failure if nhw == (1, 64, 192) else {}))

    sizes = [(80, 64), (192, 64)] * 20
    with PosePipeline(step=make_device_step(device, network_for, Kernels(driver, device))) as pose:
        for _ in range(2):
            assert numbers(pose.run(Pictures(sizes))) == list(range(1, len(sizes) + 1))
        assert len(driver.bindings.graphs) == 3
        assert launches(driver) == 39
    assert caplog.text.count("inputs of 64x192 are launched kernel by kernel") == 1
    assert caplog.text.count("not this shape") == 1
    assert not driver.live


def test_two_pipelines_in_one_process_do_not_break_each_others_captures(driver, caplog, monkeypatch):
    """Each makes and frees workspaces and graphs all the time, while the other captures."""
    monkeypatch.setattr("pipeline.device_step.MAX_SHAPES", 2)
    monkeypatch.setattr("pipeline.device_buffers.MAX_LAYOUTS", 2)
    sizes = [(64 * n, 64) for n in (1, 2, 3, 4, 5, 6) for _ in range(5)] * 3
    found: dict[int, list[int]] = {}
    steps = [make_step(driver) for _ in range(2)]

    def work(index):
        with PosePipeline(step=steps[index]) as pose:
            found[index] = numbers(pose.run(Pictures(sizes)))

    threads = [threading.Thread(target=work, args=(index,)) for index in range(2)]
    with caplog.at_level(logging.WARNING):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == {index: list(range(1, len(sizes) + 1)) for index in range(2)}
    assert not caplog.records
    assert not driver.live


def test_the_engine_alone_is_a_graph_of_the_network_without_a_wait_after_each_pass(driver):
    networks: list[Network] = []
    step = make_step(driver, networks)
    with step.device.current():
        driver.log.clear()
        times_ms = step.time_engine((80, 64), seconds=0.01)
    assert networks[0].passes == 2  # one plain, one captured: the rest are launches of the graph
    assert len(times_ms) == TIMED_PASSES
    assert driver.log.count("wait") == len(times_ms) / TIMED_PASSES
    assert not driver.bindings.graphs
    step.close()


def test_parts_are_timed_as_graphs_of_their_own_and_leave_nothing(driver):
    step = make_step(driver)
    times_ms = step.time_parts(np.full((64, 80, 3), 7, np.uint8), seconds=0.01)
    assert list(times_ms) == ["upload", "preprocess", "infer", "group", "download"]
    assert round(float(step.finish(0)[0].scores[0]) * 255) == 7
    assert not driver.bindings.graphs
    step.close()
    assert not driver.live


def test_a_network_that_fails_without_a_graph_ends_the_run(driver):
    networks: list[Network] = []
    step = make_step(driver, networks, fails_under_capture=RuntimeError("under capture"))
    with PosePipeline(step=step) as pose:
        pose.warm_up((80, 64))
        networks[0].plans = None  # type: ignore[assignment]  # the next plain pass fails, too
        with pytest.raises(StageError, match="infer failed on frame 0"):
            list(pose.run(Pictures([(80, 64)] * 9)))
    assert not driver.live
