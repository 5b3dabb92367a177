"""benchmarks.frame_step on a device of arrays: real frames, nothing timed that is not to be, drawn people on demand."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks import frame_step
from benchmarks.drawn_maps import DrawnRunner, draw
from benchmarks.frame_step import DISCARDED, Ready, draw_people, measure, row
from core.spec import ModelSpec
from engine.runner import Heads
from kernels.cpu import decode
from kernels.options import DecodeOptions
from pipeline import LIVE_OPTIONS, PosePipeline, open_source
from pipeline.step import HostStep, PassOptions
from pipeline.types import People
from tests.pipeline.fake_device import OPERATION_MS, FakeDevice
from tests.pipeline.test_device_step import make_step


@pytest.mark.parametrize("eager", [False, True])
def test_a_row_of_the_frame_step(eager, monkeypatch):
    networks: list[Any] = []
    with PosePipeline(step=make_step(FakeDevice(eager=eager), networks=networks)) as pose:
        monkeypatch.setattr(pose.step, "time_engine", lambda frame_wh, *, seconds: [2.0, 2.0, 2.0])
        cells = row(pose, pose, (96, 64), 12)
    assert len(cells) == len(frame_step.HEADER)
    assert cells[:5] == ["96x64", "64x128", "2.000 / 2.000", "500.0", f"{8 * 50 / (50 * OPERATION_MS) * 1e3:.1f}"]
    assert cells[6] == "1.0"  # people a frame
    assert float(cells[7]) == pytest.approx(float(cells[5]) / 500, abs=0.01)
    assert {network.nhw[0] for network in networks} == {1, 8}
    assert [network.closed for network in networks if network.nhw[0] == 8] == [True]


def test_a_brief_row_of_frames_with_their_mirror_images(monkeypatch):
    """Without a batch, plain launches or PyTorch; the same cells under the same header."""
    networks: list[Any] = []
    device = FakeDevice(eager=True)
    with PosePipeline(step=make_step(device, networks=networks, flip=True)) as pose:
        monkeypatch.setattr(pose.step, "time_engine", lambda frame_wh, *, seconds: [2.0, 2.0, 2.0])
        cells = row(pose, None, (96, 64), 12, brief=True)
        assert frame_step.batch_cell(pose.step, (96, 64)) != "-"  # type: ignore[arg-type]  # a DeviceStep
    assert len(cells) == len(frame_step.HEADER)
    assert [name for name, cell in zip(frame_step.HEADER, cells, strict=True) if cell == "-"] == [
        "engine FPS, batch 8", "without graph", "PyTorch, host decode", "times that", "PyTorch, authors' decode",
    ]  # fmt: skip
    assert {network.nhw[0] for network in networks} == {2, 16}


def test_the_authors_way_of_decoding_takes_mirror_images_too(monkeypatch):
    shapes = []

    def infer(images):
        shapes.append(images.shape)
        np.testing.assert_array_equal(images[1], images[0, ..., ::-1])
        return draw(2, (2, 17, images.shape[2] // 2, images.shape[3] // 2), images_per_frame=2)

    runner: Any = SimpleNamespace(infer=infer)
    spec = ModelSpec(name="x")
    step = HostStep(lambda shape: runner, spec, PassOptions(flip=True), engine="torch", on_close=lambda: None)
    monkeypatch.setattr(frame_step, "scaled_clip", lambda frame_wh: [np.full((64, 96, 3), 9, np.uint8)] * 2)
    assert frame_step.authors_fps(step, (96, 64)) > 0
    assert len(shapes) == 3
    assert shapes[0][:2] == (2, 3)


def test_the_frames_are_those_of_the_clip():
    with open_source(str(frame_step.CLIP)) as source:
        first = next(iter(source)).image
    pictures = Ready(first.shape[1::-1], 10).pictures
    assert np.array_equal(pictures[0], first)
    assert all(not np.array_equal(a, b) for a, b in itertools.pairwise(pictures))
    assert [frame.image.shape for frame in Ready((96, 64), 9)] == [(64, 96, 3)] * 9


@dataclass
class Result:
    index: int
    people: People
    timings: dict[str, float] = field(default_factory=dict)


class Slow:
    """A pipeline whose clock runs a second for each of the first frames, and then a millisecond."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr("benchmarks.frame_step.time.perf_counter", lambda: self.now)
        self.frames = 0

    def warm_up(self, frame_wh):
        pass

    def run(self, source):
        for index in range(source.frames):
            self.frames += 1
            late = index >= DISCARDED
            self.now += 0.001 if late else 1.0
            people = People.nobody()
            yield Result(index, people, {"latency": 2.0 if late else 900.0})


def test_the_first_frames_of_a_run_are_not_timed(monkeypatch):
    """PyTorch chooses its plans in them: its frames would be slower than they are, and we faster than it."""
    slow = Slow(monkeypatch)
    measured = measure(slow, (96, 64), 20)  # type: ignore[arg-type]
    assert measured.fps == pytest.approx(1000)
    assert measured.latency_ms == [2.0] * 20
    assert slow.frames == DISCARDED + 20


@pytest.mark.parametrize("people", [1, 10])
def test_drawn_maps_hold_about_as_many_people_as_were_asked_for(people):
    """As the live filter leaves them: a person of few or faint joints is dropped."""
    heatmaps, tags = draw(people, (2, 17, 128, 176))
    assert (heatmaps.shape, tags.shape) == ((2, 17, 128, 176), (2, 17, 64, 88))
    assert not np.array_equal(heatmaps[0], heatmaps[1])
    for n in range(2):
        _, scores = decode(heatmaps[n : n + 1], tags[n : n + 1], DecodeOptions())
        assert people <= len(scores) <= people + 4
        _, scores = decode(heatmaps[n : n + 1], tags[n : n + 1], LIVE_OPTIONS)
        assert people - 3 <= len(scores) <= people + 1


def test_with_flip_a_drawn_crowd_is_one_of_both_images():
    heatmaps, tags = draw(10, (4, 17, 128, 176), images_per_frame=2)
    assert (heatmaps.shape, tags.shape) == ((4, 17, 128, 176), (4, 17, 64, 88))
    for n in (0, 2):
        _, scores = decode(heatmaps[n : n + 2], tags[n : n + 2], LIVE_OPTIONS)
        assert 7 <= len(scores) <= 11


def test_a_step_decodes_drawn_people_whatever_the_network_gives():
    device = FakeDevice(eager=True)
    networks: list[Any] = []
    step = make_step(device, networks=networks)
    with PosePipeline(step=step) as pose:
        pose.warm_up((96, 64))  # as `auto` does: what is open already must not stay as it is
        draw_people(step, 5)
        seen = []
        kernels: Any = step._kernels
        decoding = kernels.decode

        def decode_and_note(heatmaps, tags, **arguments):
            seen.append((heatmaps, tags))
            return decoding(heatmaps, tags, **arguments)

        kernels.decode = decode_and_note
        before = networks[-1]
        pose.warm_up((96, 64))
        expected = draw(5, networks[-1].arrays["heatmaps"].shape)
        for heatmaps, tags in seen:
            np.testing.assert_array_equal(heatmaps.values.reshape(expected.heatmaps.shape), expected.heatmaps)
            np.testing.assert_array_equal(tags.values.reshape(expected.tags.shape), expected.tags)
        assert seen
        assert before.closed
        assert networks[-1].enqueued > 1  # it runs all the same
    assert networks[-1].closed


def test_the_baseline_runs_its_network_and_gives_drawn_people():
    class Zeros:
        spec, engine, passes = None, "torch", 0

        def infer(self, images):
            self.passes += 1
            return Heads(np.zeros((1, 17, 32, 64), np.float32), np.zeros((1, 17, 16, 32), np.float32))

    runner = Zeros()
    drawn = DrawnRunner(runner, 3)  # type: ignore[arg-type]
    first = drawn.infer(np.zeros((1, 3, 64, 128), np.float32))
    assert drawn.infer(np.zeros((1, 3, 64, 128), np.float32)) is first
    assert runner.passes == 2
    np.testing.assert_array_equal(first.heatmaps, draw(3, (1, 17, 32, 64)).heatmaps)
