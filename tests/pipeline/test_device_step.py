"""DeviceStep on a simulated device, which runs operations as late, or as early, as streams and events allow."""

from __future__ import annotations

import threading
import weakref
from typing import Any

import numpy as np
import pytest

from core.errors import EngineError, StageError
from engine.device import Rows, exclusive
from kernels.colour import Colour
from pipeline.device_buffers import MIN_SHAPES
from pipeline.device_timing import TIMED_PASSES
from pipeline.pose import PosePipeline
from pipeline.sources import Source
from pipeline.types import Frame
from tests.pipeline.fake_device import (
    OPERATION_MS,
    FakeDevice,
    FakeGraph,
    FakeKernels,
    FakeNetwork,
    FakePinned,
    make_device_step,
)

BT709 = Colour("bt709")


class Pictures(Source):
    """Frames filled with 1, 2, 3 …, of the given sizes."""

    def __init__(self, sizes_wh):
        self.sizes_wh = sizes_wh

    def __iter__(self):
        for index, (w, h) in enumerate(self.sizes_wh):
            yield Frame(np.full((h, w, 3), index + 1, np.uint8), index)


@pytest.fixture(params=[False, True], ids=["late", "early"])
def device(request):
    return FakeDevice(eager=request.param)


def make_step(device, *, fail_at=None, **options):
    return make_device_step(
        device, lambda nhw: FakeNetwork(device, nhw, fail_at=fail_at), FakeKernels(device), **options
    )


def number(people):
    return round(float(people.scores[0]) * 255)


def numbers(results):
    """Which frame each result was made of, by its person's score."""
    return [number(result.people) for result in results]


def run(step, sizes_wh):
    with PosePipeline(step=step) as pose:
        return list(pose.run(Pictures(sizes_wh)))


def test_every_frame_gets_its_own_people_in_order(device):
    results = run(make_step(device), [(80, 64)] * 60)
    assert numbers(results) == list(range(1, 61))
    assert [result.frame.index for result in results] == list(range(60))
    assert device.closed == 1


def test_people_come_back_in_frame_pixels(device):
    result = run(make_step(device), [(160, 128)])[0]
    np.testing.assert_allclose(result.people.keypoints[0], np.full((17, 2), (80, 64)), atol=1e-5)
    np.testing.assert_allclose(result.people.keypoint_scores, 0.5)


def test_each_slot_captures_one_graph_and_launches_it_for_every_later_frame(device):
    step = make_step(device)
    run(step, [(80, 64)] * 20)
    assert device.log.count("capture") == step.slots
    assert device.log.count("graph") == 19  # all but the first, which compiles


@pytest.mark.parametrize("graphs", [True, False], ids=["graphs", "calls"])
@pytest.mark.parametrize("batch", [1, 4])
def test_after_the_first_frames_nothing_is_allocated_on_the_device(device, graphs, batch):
    step = make_step(device, batch=batch, graphs=graphs)
    with PosePipeline(step=step) as pose:
        made = [device.made for _ in pose.run(Pictures([(80, 64)] * 201))]  # the last pass is not full
    warm = 5 * step.slots * batch
    assert made[0] > 0
    assert set(made[warm:]) == {made[warm]}


def test_without_graphs_the_people_are_the_same(device):
    assert numbers(run(make_step(device, graphs=False), [(80, 64)] * 10)) == list(range(1, 11))
    assert "graph" not in device.log


def test_graphs_can_be_switched_off_and_on_again(device):
    step = make_step(device)
    with PosePipeline(step=step) as pose:
        for graphs, expected in ((True, 9), (False, 9), (True, 19)):
            step.graphs = graphs
            assert numbers(pose.run(Pictures([(80, 64)] * 10))) == list(range(1, 11))
            assert device.log.count("graph") == expected
    assert device.log.count("capture") == step.slots


def test_a_frame_of_another_size_in_mid_stream_loses_no_frame(device):
    networks: list[FakeNetwork] = []
    sizes = [(80, 64)] * 7 + [(128, 256)] * 7 + [(80, 64)] * 7
    assert numbers(run(make_step(device, networks=networks), sizes)) == list(range(1, 22))
    assert len(networks) == 2  # the first shape is kept for its return
    assert all(network.closed for network in networks)


IN_TURN = {
    "one input shape": [(160, 128), (80, 64)],
    "each twice": [(160, 128)] * 2 + [(80, 64)] * 2,
    "five input shapes": [(64 * n, 64) for n in (1, 2, 3, 4, 5)],
}


@pytest.mark.parametrize("sizes", IN_TURN.values(), ids=IN_TURN)
def test_sizes_in_turn_allocate_and_capture_nothing_after_the_first_frames(device, sizes):
    """As cameras of different sizes, side by side."""
    networks: list[FakeNetwork] = []
    step = make_step(device, networks=networks)
    with PosePipeline(step=step) as pose:
        seen = [(number(result.people), device.made) for result in pose.run(Pictures(sizes * (120 // len(sizes))))]
        assert [value for value, _ in seen] == list(range(1, 121))
        assert {made for _, made in seen[60:]} == {seen[-1][1]}
        assert device.log.count("capture") == step.slots * len(set(sizes))
        assert len(networks) == len({network.nhw for network in networks})


@pytest.mark.parametrize(("share_of_a_shape", "open_at_most"), [(0.0, 6), (0.1, 6), (0.12, 5), (0.5, MIN_SHAPES)])
def test_networks_stay_open_while_half_of_the_gpus_memory_is_free(device, share_of_a_shape, open_at_most):
    networks: list[FakeNetwork] = []
    device.share_of_a_shape = share_of_a_shape
    sizes = [(64 * n, 64) for n in (1, 2, 3, 4, 5, 6, 1)] * 3
    step = make_step(device, networks=networks)
    open_now = []
    with PosePipeline(step=step) as pose:
        for index, result in enumerate(pose.run(Pictures(sizes))):
            assert number(result.people) == index + 1
            open_now.append(sum(not network.closed for network in networks))
        assert max(open_now) == open_at_most == len(device.workspaces)
    assert all(network.closed for network in networks)
    assert device.workspaces == []


def test_the_number_of_open_networks_is_limited(device, monkeypatch):
    monkeypatch.setattr("pipeline.device_step.MAX_SHAPES", 5)
    with PosePipeline(step=make_step(device)) as pose:
        for index, result in enumerate(pose.run(Pictures([(64 * n, 64) for n in range(1, 9)] * 2))):
            assert number(result.people) == index + 1
            assert len(device.workspaces) <= 5


def frame_buffers(device):
    """The bytes in pinned memory of each slot's frames."""
    return [thing.array.nbytes for thing in device.owned if isinstance(thing, FakePinned) and thing.array.ndim > 1]


@pytest.mark.parametrize(
    ("limit", "value", "at_most"), [("MAX_LAYOUTS", 2, 6), ("MAX_LAYOUT_BYTES", 3 * 128 * 128 * 3, 9)]
)
def test_the_frame_buffers_that_were_used_longest_ago_are_freed_with_their_graphs(
    device, monkeypatch, limit, value, at_most
):
    monkeypatch.setattr(f"pipeline.device_buffers.{limit}", value)
    sizes = [(128, 128 - n) for n in range(5) for _ in range(6)] * 2
    with PosePipeline(step=make_step(device)) as pose:
        for index, result in enumerate(pose.run(Pictures(sizes))):
            assert number(result.people) == index + 1
            assert len(frame_buffers(device)) <= at_most
        graphs = [thing for thing in device.owned if isinstance(thing, FakeGraph)]
        assert len(frame_buffers(device)) == len(graphs) == at_most


def test_frames_larger_than_the_limit_are_processed_too(device, monkeypatch):
    monkeypatch.setattr("pipeline.device_buffers.MAX_LAYOUT_BYTES", 100)
    with PosePipeline(step=make_step(device)) as pose:
        assert numbers(pose.run(Pictures([(80, 64), (64, 80)] * 10))) == list(range(1, 21))
        assert len(frame_buffers(device)) == 3


def test_a_slot_that_frees_a_graph_while_its_shape_is_closed_frees_it_once(device, monkeypatch):
    """A device frees under `exclusive`, and shapes are closed under it, with the graphs of all slots."""
    step, free, waits = make_step(device), device.free, threading.Event()

    def free_as_a_device_does(*things):
        waits.set()
        with exclusive():
            free(*things)  # a thing that was freed before is an error

    def change_size():
        step.prepare(0, [np.zeros((128, 256, 3), np.uint8)])

    with PosePipeline(step=step) as pose:
        pose.warm_up((80, 64))
        monkeypatch.setattr("pipeline.device_buffers.MAX_LAYOUTS", 1)
        monkeypatch.setattr(device, "free", free_as_a_device_does)
        thread = threading.Thread(target=change_size)
        with exclusive():
            thread.start()
            assert waits.wait(10)
            step.replace_networks(step.network_for)
        thread.join()
        assert not any(isinstance(thing, FakeGraph) for thing in device.owned)


def test_flip_is_a_batch_of_two(device):
    networks: list[FakeNetwork] = []
    assert numbers(run(make_step(device, flip=True, networks=networks), [(80, 64)] * 5)) == [1, 2, 3, 4, 5]
    assert networks[0].nhw[0] == 2


@pytest.mark.parametrize("fail_at", [1, 2, 4])
def test_a_network_that_fails_ends_the_run_once_and_everything_is_closed(device, fail_at):
    networks: list[FakeNetwork] = []
    before = threading.active_count()
    with pytest.raises(StageError, match=r"infer failed on frame.*the plan could not be run"):
        run(make_step(device, fail_at=fail_at, graphs=False, networks=networks), [(80, 64)] * 30)
    assert threading.active_count() == before
    assert device.workspaces == []
    assert device.closed == 1
    assert networks[0].closed


def test_a_device_that_has_failed_is_closed_all_the_same(device, caplog, monkeypatch):
    step = make_step(device)
    with PosePipeline(step=step) as pose:
        assert numbers(pose.run(Pictures([(80, 64)] * 3))) == [1, 2, 3]
        failure = EngineError("an illegal memory access")
        monkeypatch.setattr(step._compute, "synchronize", lambda: (_ for _ in ()).throw(failure))
    assert "an illegal memory access" in caplog.text
    assert device.log[-1] == "close device"


def test_leaving_early_closes_the_networks_before_the_device(device):
    with PosePipeline(step=make_step(device)) as pose:
        results = pose.run(Pictures([(80, 64)] * 50))
        next(results)
        results.close()
    assert [line for line in device.log if line.startswith("close")] == ["close network (1, 64, 128)", "close device"]
    pose.close()
    assert device.closed == 1


def test_a_second_run_of_the_same_pipeline_works(device):
    with PosePipeline(step=make_step(device)) as pose:
        for _ in range(2):
            assert numbers(pose.run(Pictures([(80, 64)] * 9))) == list(range(1, 10))


def test_after_leaving_early_the_next_run_finds_its_slots_free(device):
    with PosePipeline(step=make_step(device)) as pose:
        for _ in range(3):
            results = pose.run(Pictures([(80, 64)] * 50))
            assert number(next(results).people) == 1
            results.close()
            assert all(stream.done == stream.enqueued for stream in device.streams.values())
        assert numbers(pose.run(Pictures([(80, 64)] * 9))) == list(range(1, 10))


def test_the_engine_alone_is_timed_by_events(device):
    step = make_step(device)
    step.warm_up((80, 64))
    owned = len(device.owned)
    assert step.time_engine((80, 64), seconds=0.1) == [5.0] * 2 * TIMED_PASSES  # 16 times 5 ms, until 100 are full
    assert len(device.owned) == owned
    step.close()


def test_each_part_of_a_frame_is_timed_by_events(device):
    step = make_step(device)
    times_ms = step.time_parts(np.full((64, 80, 3), 7, np.uint8), seconds=0.1)
    assert list(times_ms) == ["upload", "preprocess", "infer", "group", "download"]
    # Each part is one operation, also the copy back: 5 parts of 5 ms until 100 ms are full.
    assert times_ms == dict.fromkeys(times_ms, [OPERATION_MS] * 4)
    assert number(step.finish(0)[0]) == 7
    step.close()


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("batch", [1, 3])
def test_a_batch_gives_each_frame_its_own_people(device, batch, flip):
    """Two sizes, so that batches are cut, and a partial batch at the end."""
    step = make_step(device, batch=batch, flip=flip)
    sizes = [(80, 64)] * 4 + [(64, 80)] * 5
    with PosePipeline(step=step) as pose:
        assert [number(result.people) for result in pose.run(Pictures(sizes))] == list(range(1, 10))
    assert step.input_shape((80, 64))[0] == batch * (2 if flip else 1)


class FakeSurface:
    """NV12 in device memory, with padding; its bytes are overwritten as soon as nobody holds the object."""

    def __init__(self, value, wh, colour=BT709):
        w, h = wh
        self.wh, self.colour, self.copies = wh, colour, 0
        self.value = value
        planes = [np.full((h, w + 7), value, np.uint8), np.full(((h + 1) // 2, w + w % 2 + 5), value, np.uint8)]
        widths = w, w + w % 2
        self.luma, self.chroma = (
            Rows(lambda plane=plane: plane, plane.shape[1], width, len(plane))  # type: ignore[arg-type]
            for plane, width in zip(planes, widths, strict=True)
        )
        for plane in planes:
            weakref.finalize(self, plane.fill, 0)

    def to_host(self):
        self.copies += 1
        return np.full((self.wh[1], self.wh[0], 3), self.value, np.uint8)


class Surfaces(Source):
    """A picture for each value, which counts up from 1: on the device for a size, in host memory for ("host", size)."""

    def __init__(self, kinds, colours=(BT709,)):
        self.kinds, self.colours = kinds, colours
        self.device: Any = None
        self.copies = 0

    def leave_on(self, device):
        self.device = device

    def __iter__(self):
        for index, kind in enumerate(self.kinds):
            if kind[0] == "host":
                yield Frame(np.full((*kind[1][::-1], 3), index + 1, np.uint8), index)
                continue
            surface = FakeSurface(index + 1, kind, self.colours[index % len(self.colours)])
            yield Frame(surface, index)
            self.copies += surface.copies


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("graphs", [True, False])
def test_frames_that_stay_on_the_device_are_not_uploaded(device, batch, flip, graphs):
    """And nobody but the step holds them while they are copied."""
    step = make_step(device, batch=batch, flip=flip, graphs=graphs)
    source = Surfaces([(80, 64)] * 11 + [(65, 49)] * 6 + [(80, 64)] * 3)
    with PosePipeline(step=step) as pose:
        assert [number(result.people) for result in pose.run(source)] == list(range(1, 21))
        assert source.device is device
        assert source.copies == 0
        assert frame_buffers(device) == []
        assert set(step._kernels.colours) == {BT709}
    assert ("graph" in device.log) == graphs


def test_a_slot_whose_frames_change_their_place_or_colours_gets_new_buffers_and_graphs(device):
    step = make_step(device)
    kinds = [(80, 64), ("host", (80, 64))] * 6 + [(80, 64)] * 12
    with PosePipeline(step=step) as pose:
        source = Surfaces(kinds, colours=[BT709, BT709, BT709, Colour()])
        assert numbers(pose.run(source)) == list(range(1, 25))
    assert set(step._kernels.colours) == {BT709, Colour()}


def test_the_kernel_of_surfaces_has_run_before_it_is_captured(device):
    """The shape is warm, but with the other kernel: a first run compiles, which a capture must not."""
    step = make_step(device)
    runs = []
    launch = step._kernels.preprocess_nv12

    def watched(*arguments, **named):
        runs.append(any(stream.recording is not None for stream in device.streams.values()))
        launch(*arguments, **named)

    step._kernels.preprocess_nv12 = watched
    step.warm_up((80, 64))
    with PosePipeline(step=step) as pose:
        assert numbers(pose.run(Surfaces([(80, 64)] * 12))) == list(range(1, 13))
    assert runs[0] is False
    assert any(runs)


def test_after_leaving_early_no_surface_is_still_to_be_copied(device):
    with PosePipeline(step=make_step(device)) as pose:
        results = pose.run(Surfaces([(80, 64)] * 50))
        assert number(next(results).people) == 1
        results.close()
        assert all(stream.done == stream.enqueued for stream in device.streams.values())
        assert numbers(pose.run(Surfaces([(80, 64)] * 9))) == list(range(1, 10))


def test_the_step_holds_a_surface_until_it_is_copied(device):
    """The frame that it came with may be gone by then, as after a run that was left early."""
    with PosePipeline(step=make_step(device)) as pose:
        surface = FakeSurface(7, (80, 64))
        pose.step.prepare(0, [surface])
        del surface
        pose.step.infer(0)
        assert [number(people) for people in pose.step.finish(0)] == [7]
