"""HostStep with a network that finds coloured blobs: positions survive the way in and back out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.runner import Heads
from pipeline import PosePipeline
from pipeline.step import HostStep, PassOptions
from pipeline.types import Frame, People
from tests.pipeline.fakes import FakeSource
from tests.pipeline.onnx_models import blob_frame, blob_spec, write_blob_model
from tests.pipeline.test_types import OnDevice

PEOPLE = [(60.0, 50.0, 0.1), (200.0, 130.0, 0.5), (130.0, 180.0, 0.9)]


@pytest.fixture
def blobs(tmp_path) -> Callable[..., PosePipeline]:
    def make(*, flip=False, size=None, batch=1, spread=0, **spec) -> PosePipeline:
        path = write_blob_model(tmp_path / "blobs.onnx", blob_spec(**spec), spread=spread)
        return PosePipeline(str(path), engine="onnxruntime", size=size, flip=flip, batch=batch)

    return make


def centers(people: People) -> np.ndarray:
    """(P, 2), sorted by x."""
    xy: np.ndarray = people.keypoints.mean(axis=1)
    return np.array(xy[np.argsort(xy[:, 0])])


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("size", [None, 256])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_people_are_found_where_they_are(blobs, flip, size, precision):
    with blobs(flip=flip, size=size, precision=precision) as pose:
        people = pose(blob_frame((256, 224), PEOPLE))
    assert len(people) == 3
    expected = np.array(sorted((x, y) for x, y, _ in PEOPLE))
    # worst of all modes 1.1 px: half a cell is 0.9 px here
    np.testing.assert_allclose(centers(people), expected, atol=1.3)
    assert (people.scores > 0.8).all()


@pytest.mark.parametrize("wh", [(256, 224), (224, 256), (255, 225), (640, 200), (128, 128)])
def test_any_frame_shape(blobs, wh):
    x, y = wh[0] * 0.4, wh[1] * 0.6
    with blobs() as pose:
        people = pose(blob_frame(wh, [(x, y, 0.5)]))
    np.testing.assert_allclose(centers(people), [(x, y)], atol=2.2 * max(1, min(wh) / 128))


def test_a_fixed_model_sees_the_whole_frame(blobs):
    with blobs(fixed_hw=(128, 192)) as pose:
        assert pose.step.input_shape((100, 300)) == (1, 128, 192)
        people = pose(blob_frame((100, 300), [(50, 20, 0.1), (50, 280, 0.9)]))
    np.testing.assert_allclose(
        sorted(people.keypoints.mean(axis=1).tolist(), key=lambda xy: xy[1]), [(50, 20), (50, 280)], atol=4
    )


def test_each_joint_keeps_its_place(blobs):
    """Joint k is seen at its own offset from the blob: no joint is swapped, no axis mirrored."""
    with blobs(spread=1) as pose:
        people = pose(blob_frame((256, 256), [(128, 128, 0.5)]))
    cell = 2 * 256 / 128  # in frame pixels
    offsets = np.array([(k % 3 - 1, k // 3 - 3) for k in range(17)]) * cell
    np.testing.assert_allclose(people.keypoints[0] - 128, offsets, atol=1.5)


def test_an_empty_picture_has_nobody(blobs):
    with blobs() as pose:
        people = pose(np.zeros((100, 150, 3), np.uint8))
    assert (len(people), people.keypoints.shape) == (0, (0, 17, 2))


def test_frames_of_changing_size_all_come_out(blobs):
    sizes = [(256, 224), (256, 224), (224, 256), (640, 200), (256, 224), (128, 128)] * 3

    class Changing(FakeSource):
        def __iter__(self):
            for frame, wh in zip(super().__iter__(), sizes, strict=True):
                image = blob_frame(wh, [(wh[0] * 0.5, wh[1] * 0.5, 0.5)])
                yield type(frame)(image, frame.index, frame.time_s, frame.captured_at, frame.source)

    with blobs() as pose:
        results = list(pose.run(Changing(len(sizes))))
    assert [result.frame.index for result in results] == list(range(len(sizes)))
    for result in results:
        middle = np.array(result.frame.wh) / 2
        np.testing.assert_allclose(centers(result.people), [middle], atol=4)


def test_threads_and_serial_give_the_same_people(blobs):
    class Moving(FakeSource):
        def __iter__(self):
            for frame in super().__iter__():
                image = blob_frame((256, 224), [(20 + 9 * frame.index, 100, 0.3), (200, 20 + 5 * frame.index, 0.9)])
                yield type(frame)(image, frame.index)

    with blobs() as pose:
        threaded, serial = list(pose.run(Moving(20))), list(pose.run(Moving(20), serial=True))
    for one, other in zip(threaded, serial, strict=True):
        np.testing.assert_array_equal(one.people.keypoints, other.people.keypoints)


def test_the_runners_reused_outputs_are_not_read_late(tmp_path):
    """A runner may overwrite its outputs at its next pass, while the frame before is still to be decoded."""

    class Reusing:
        spec, engine, passes = blob_spec(), "reusing", 0

        def __init__(self) -> None:
            self.heads = Heads(np.zeros((1, 17, 64, 64), np.float32), np.zeros((1, 17, 32, 32), np.float32))

        def infer(self, images) -> Heads:
            self.heads.heatmaps[:] = 0
            self.heads.heatmaps[:, :, 10, 10 + self.passes] = 1
            self.passes += 1
            return self.heads

        def close(self) -> None:
            pass

    from pipeline import LIVE_OPTIONS

    runner = Reusing()
    step = HostStep(lambda shape: runner, runner.spec, PassOptions(decode=LIVE_OPTIONS), engine="reusing")  # type: ignore[arg-type,return-value]
    for slot in range(3):
        step.prepare(slot, [np.zeros((128, 128, 3), np.uint8)])
        step.infer(slot)
    xs = [float(step.finish(slot)[0].keypoints[0, 0, 0]) for slot in range(3)]
    assert np.diff(xs) == pytest.approx([2, 2])


def test_the_engine_is_timed_alone(blobs):
    with blobs() as pose:
        pose.warm_up((256, 224))
        times_ms = pose.step.time_engine((256, 224), seconds=0.01)
    assert len(times_ms) >= 3
    assert min(times_ms) > 0


def test_closing_twice_and_using_a_closed_pipeline(blobs):
    pose = blobs()
    pose.close()
    pose.close()
    with pytest.raises(RuntimeError, match="closed"):
        pose(np.zeros((10, 10, 3), np.uint8))


def test_the_public_names_work_as_documented(tmp_path):
    from pipeline import open_source

    path = write_blob_model(tmp_path / "blobs.onnx")
    from tests.pipeline.fakes import write_clip

    clip = write_clip(tmp_path / "a.mp4", 3, wh=(256, 224), picture=lambda i: blob_frame((256, 224), PEOPLE))
    with PosePipeline(str(path)) as pose:
        for result in pose.run(open_source(clip)):
            assert len(result.people) == 3
            assert len(result.people.to_coco()) == 3
    assert isinstance(path, Path)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_passes_side_by_side_find_what_single_ones_find(blobs, monkeypatch, flip, precision):
    """Twelve frames, of two sizes: each has its people at its own place."""
    monkeypatch.setattr("engine.onnx_runner.usable_cores", lambda: 3)
    frames = [blob_frame((256, 224) if i % 4 else (224, 256), [(60 + 8 * i, 100, 0.5)]) for i in range(12)]
    with blobs(flip=flip, precision=precision) as pose:
        assert pose.step.concurrency == 3
        results = list(pose.run(Pictures(frames)))
        single = [pose(frame) for frame in frames]
    assert [len(result.people) for result in results] == [1] * 12
    for result, people in zip(results, single, strict=True):
        np.testing.assert_allclose(result.people.keypoints, people.keypoints, atol=1e-3)


@pytest.mark.parametrize("concurrent", [False, True])
def test_the_engine_alone_is_timed(blobs, monkeypatch, concurrent):
    """A pass takes 20 ms; two at the same time take 10 ms each."""
    monkeypatch.setattr("engine.onnx_runner.usable_cores", lambda: 2)
    with blobs() as pose:
        for name in ("infer", "infer_into"):
            monkeypatch.setattr(pose.step._parallel, name, lambda *arrays: time.sleep(0.02))
        times_ms = pose.step.time_engine((256, 224), seconds=0.2, concurrent=concurrent)
    assert len(times_ms) >= 3
    low, high = (9, 16) if concurrent else (20, 32)
    assert low <= np.median(times_ms) < high


class Pictures(FakeSource):
    """A source of these frames."""

    def __init__(self, images: list[np.ndarray]) -> None:
        super().__init__(len(images))
        self.images = images

    def __iter__(self) -> Iterator[Frame]:
        for frame, image in zip(super().__iter__(), self.images, strict=True):
            yield replace(frame, picture=image)


class Moving(FakeSource):
    """One blob that moves to the right, frame by frame; the frame's size changes after the fourth."""

    def __iter__(self) -> Iterator[Frame]:
        for index in range(self.count):
            wh = (256, 224) if index < 4 else (224, 256)
            yield Frame(blob_frame(wh, [(60.0 + 8 * index, 50.0, 0.5)]), index, source="moving")


class Copied(OnDevice):
    """A picture on a device that this step knows nothing of."""

    def __init__(self, image: np.ndarray) -> None:
        self.image, self.wh = image, (image.shape[1], image.shape[0])

    def to_host(self) -> np.ndarray:
        return self.image


def test_pictures_on_a_device_are_copied_to_the_host(blobs):
    image = blob_frame((256, 224), PEOPLE)
    pictures: list[Any] = [image, Copied(image)]
    with blobs() as pose:
        assert pose.step.device is None
        found = [pose.run(Pictures([picture])) for picture in pictures]
        (host,), (device,) = (list(results) for results in found)
    assert len(device.people) == 3
    np.testing.assert_array_equal(device.people.keypoints, host.people.keypoints)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_batch_gives_each_frame_its_own_people(blobs, flip, precision):
    """Full batches, partial ones, and two sizes: as one frame after another."""
    found = []
    for batch in (1, 3):
        with blobs(flip=flip, batch=batch, precision=precision) as pose:
            found.append([result.people for result in pose.run(Moving(9))])
    assert len(found[0]) == len(found[1]) == 9
    for alone, batched in zip(*found, strict=True):
        assert alone.keypoints == pytest.approx(batched.keypoints, abs=1e-3)
        assert alone.scores == pytest.approx(batched.scores, abs=1e-6)
    assert [float(people.keypoints[0, 0, 0]) for people in found[1]] == pytest.approx(
        [60 + 8 * i for i in range(9)], abs=1.0
    )
