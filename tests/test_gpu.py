"""The whole pipeline on a GPU: `pytest -m gpu --require-gpu`."""

from __future__ import annotations

import functools
import importlib.util
import itertools
import resource
import threading
from pathlib import Path

import numpy as np
import pytest

from commands.selfcheck import ENGINES, FRAMES, compare_people, disagreement, people_of
from core.errors import EngineError
from engine.gpu import find_gpu
from engine.tensorrt.flavor import MODULES, RTX_CAPABILITIES
from pipeline import PosePipeline, open_source
from pipeline.sources import Source
from pipeline.types import Frame

pytestmark = pytest.mark.gpu

CLIP = Path(__file__).parents[1] / "samples" / "crowd.mp4"


@pytest.fixture(params=ENGINES)
def engine(request):
    module = MODULES.get(request.param, request.param)
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed")
    if request.param == "tensorrt-rtx" and (refusal := refusal_of_rtx()) is not None:
        pytest.skip(f"this GPU is none of TensorRT-RTX's, which says: {refusal}")
    return request.param


@functools.cache
def refusal_of_rtx() -> str | None:
    """What TensorRT-RTX answers a GPU that it is not made for; None where it runs, or has to."""
    gpu, _ = find_gpu()
    if gpu is None or gpu.compute_capability in RTX_CAPABILITIES:
        return None
    try:
        with PosePipeline("tiny", engine="tensorrt-rtx") as pose:
            pose.warm_up()
    except EngineError as error:
        return str(error)
    return None


class Noise(Source):
    """The same few pictures over and over; sizes_wh takes turns every `stretch` frames."""

    def __init__(self, frames, sizes_wh=((640, 480),), stretch=50):
        rng = np.random.default_rng(0)
        self.frames, self.stretch = frames, stretch
        self.pictures = [[rng.integers(0, 255, (h, w, 3), np.uint8) for _ in range(4)] for w, h in sizes_wh]

    def __iter__(self):
        for index in range(self.frames):
            turn = self.pictures[index // self.stretch % len(self.pictures)]
            yield Frame(turn[index % len(turn)], index)


def host_bytes():
    """Of this process, resident."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def device_bytes():
    """Of the whole GPU, used; a context must be current."""
    import pycuda.driver as cuda

    free, total = cuda.mem_get_info()
    return total - free


@pytest.mark.parametrize("flip", [False, True], ids=["plain", "flip"])
def test_people_are_those_of_the_cpu(engine, flip):
    comparison = compare_people(people_of("onnxruntime", flip=flip), people_of(engine, flip=flip))
    print(f"{engine}, {FRAMES} frames: {comparison.matched} of {comparison.people} people matched, "
          f"median {comparison.percentile(50):.3f} px, 99 % {comparison.percentile(99):.3f} px")  # fmt: skip
    assert disagreement(comparison) is None


def test_twenty_thousand_frames_leave_memory_flat(engine):
    with PosePipeline("tiny", engine=engine) as pose:
        seen = []
        for result in pose.run(Noise(20_000)):
            if result.frame.index in (2_000, 19_999):
                assert pose.step.device is not None
                with pose.step.device.current():
                    seen.append((host_bytes(), device_bytes()))
    (host_early, device_early), (host_late, device_late) = seen
    print(f"{engine}: host {(host_late - host_early) >> 10} KiB, device {(device_late - device_early) >> 10} KiB more")
    assert host_late - host_early < 32 << 20
    # Of the whole GPU, which others use too: a leak of one frame (0.9 MB) in each 250 would show.
    assert device_late - device_early < 32 << 20


def test_frames_are_graphs(engine, caplog):
    """Two runs, each with threads of its own; the first leaves a slot that the second has to capture."""
    with PosePipeline("tiny", engine=engine) as pose:
        for frames in (2, 20):
            assert sum(1 for _ in pose.run(Noise(frames))) == frames
        (shape,) = pose.step._shapes.values()  # type: ignore[attr-defined]  # of DeviceStep
        assert len(shape.graphs) == pose.step.slots
    assert "kernel by kernel" not in caplog.text


def test_two_pipelines_in_one_process_do_not_break_each_others_captures(engine, caplog, monkeypatch):
    """Each makes and frees memory, as its frames change their size, while the other captures and runs."""
    monkeypatch.setattr("pipeline.device_step.MAX_SHAPES", 4)
    monkeypatch.setattr("pipeline.device_buffers.MAX_LAYOUTS", 1)
    sizes = ((640, 480), (480, 640), (1280, 720), (512, 512), (960, 540))
    found: dict[int, list[int]] = {}

    def work(number: int) -> None:
        with PosePipeline("tiny", engine=engine) as pose:
            found[number] = [result.frame.index for result in pose.run(Noise(300, sizes, stretch=5))]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: list(range(300)) for number in range(2)}
    assert "kernel by kernel" not in caplog.text


def test_the_engine_alone_is_no_slower_than_the_whole_frame(engine):
    picture = Noise(1).pictures[0][0]
    with PosePipeline("tiny", engine=engine) as pose:
        pose.warm_up((640, 480))
        alone_ms = float(np.median(pose.step.time_engine((640, 480), seconds=1)))
        parts_ms = {part: float(np.median(times)) for part, times in pose.step.time_parts(picture, seconds=1).items()}
    print(f"{engine}: alone {alone_ms:.3f} ms; {parts_ms}")
    assert abs(alone_ms - parts_ms["infer"]) < 0.2 * alone_ms


def test_a_size_that_changes_in_mid_stream_loses_no_frame(engine):
    sizes = ((640, 480), (480, 640), (1280, 720))
    with PosePipeline("tiny", engine=engine) as pose:
        assert [result.frame.index for result in pose.run(Noise(450, sizes))] == list(range(450))


def test_the_pipeline_opens_again_in_the_same_process(engine):
    people = []
    for _ in range(3):
        with PosePipeline("tiny", engine=engine) as pose:
            results = itertools.islice(pose.run(open_source(str(CLIP), decoder="cpu")), 4)  # leaves early
            people.append([len(result.people) for result in results])
    assert all(people[0])
    assert people[0] == people[1] == people[2]
