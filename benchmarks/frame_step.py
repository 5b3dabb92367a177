"""The whole frame against the engine alone, on a GPU: python -m benchmarks.frame_step [--model …] [--engine …].

Frames of the bundled clip are in memory before the run, scaled to each size, so that the figures include neither video
decoding nor a camera. In one run, for each size: the engine alone as a CUDA graph, timed by events, for one image and
for a batch of eight; the pipeline, including tracking, with graphs and with plain launches; and plain PyTorch with
host decoding (host_torch.py), if torch is installed and the model has weights: with this project's decode on the CPU,
and with the authors' way of decoding, each step over whole maps (tests/reference). The first frames of each run are not
timed: in a new thread the first passes choose cuDNN's plans again. For random weights use --people N: drawn crowds are
decoded instead of the network's outputs. With --flip an image, also of the engine alone, is a frame and its mirror
image. A second table has the parts of a frame on the device.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import itertools
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.drawn_maps import DrawnNetwork
from core.errors import PoseError
from engine.gpu import find_gpu
from kernels.cpu import preprocess
from pipeline import PosePipeline, open_source
from pipeline.device_step import DeviceStep
from pipeline.letterbox import Letterbox
from pipeline.model_files import ONNX_SUFFIX, PLAN_SUFFIX
from pipeline.pose import LIVE_OPTIONS
from pipeline.sources import Source
from pipeline.step import HostStep
from pipeline.types import Frame

SIZES_WH = (
    (512, 512),
    (640, 480),
    (1280, 720),
    (1920, 1080),
)  # at a short side of 512: 512x512, 512x704, 512x960 twice
BATCH = 8
CLIP = Path(__file__).resolve().parents[1] / "samples" / "crowd.mp4"
PICTURES = 8
DISCARDED = 30  # the pipeline's threads run their first frames, and its queues fill


class Ready(Source):
    """Frames spread over the clip and scaled, delivered as fast as they are taken."""

    def __init__(self, frame_wh: tuple[int, int], frames: int) -> None:
        self.pictures = scaled_clip(frame_wh)
        self.frames, self.frame_wh = frames, frame_wh

    def __iter__(self) -> Iterator[Frame]:
        for index in range(self.frames):
            yield Frame(self.pictures[index % len(self.pictures)], index, captured_at=time.monotonic())


@functools.lru_cache(maxsize=2)
def scaled_clip(frame_wh: tuple[int, int]) -> list[NDArray[np.uint8]]:
    """PICTURES frames of the bundled clip, (H, W, 3) uint8."""
    with open_source(str(CLIP)) as source:
        step = (source.frame_count or PICTURES) // PICTURES
        chosen = itertools.islice(source, 0, step * PICTURES, step)
        return [
            np.asarray(cv2.resize(frame.image, frame_wh, interpolation=cv2.INTER_AREA), np.uint8) for frame in chosen
        ]


@dataclass(frozen=True)
class Measured:
    """Figures of the frames after the first DISCARDED ones. latency_ms: one value per frame."""

    fps: float
    latency_ms: list[float]
    people: float  # mean per frame


def measure(pose: PosePipeline, frame_wh: tuple[int, int], frames: int) -> Measured:
    pose.warm_up(frame_wh)
    results = pose.run(Ready(frame_wh, frames + DISCARDED))
    for _ in range(DISCARDED):
        next(results)
    started = time.perf_counter()
    found = [(result.timings["latency"], len(result.people)) for result in results]
    seconds = time.perf_counter() - started
    latency_ms, people = zip(*found, strict=True)
    return Measured(frames / seconds, list(latency_ms), sum(people) / frames)


def batch_fps(step: DeviceStep, frame_wh: tuple[int, int], passes: int = 50) -> float:
    """Frames per second of the engine alone, BATCH at a time, passes queued one behind the other."""
    device = step.device
    images, h, w = step.input_shape(frame_wh)
    with device.current():
        network = step.network_for((BATCH * images, h, w))
        stream, before, after = device.stream(), device.event(timing=True), device.event(timing=True)
        try:
            network.enqueue(stream)
            before.record(stream)
            for _ in range(passes):
                network.enqueue(stream)
            after.record(stream)
            after.wait()
            return BATCH * passes / after.ms_since(before) * 1e3
        finally:
            network.close()
            device.free(before, after, stream)


def draw_people(step: DeviceStep, people: int) -> None:
    """Make the step decode drawn crowds from now on."""
    network_for, (images_per_frame, _, _) = step.network_for, step.input_shape(SIZES_WH[0])
    step.replace_networks(lambda shape: DrawnNetwork(network_for(shape), step.device, people, images_per_frame))


def authors_fps(baseline: HostStep, frame_wh: tuple[int, int]) -> float:
    """Frames per second of PyTorch and the decode in plain NumPy, one frame after another; each picture once."""
    from tests.reference.decode import decode

    pictures = scaled_clip(frame_wh)
    shape = baseline.input_shape(frame_wh)
    spec, box = baseline.spec, Letterbox.for_model(frame_wh, baseline.spec)
    images = np.empty((shape[0], 3, *shape[1:]), np.float32)  # with flip, the second is the mirror image
    converted = images.astype(spec.input_dtype)

    def people(picture: NDArray[np.uint8]) -> object:
        preprocess(picture, images[0], scale=box.scale, center=box.center, mean=spec.mean, std=spec.std)
        images[1:] = images[:1, ..., ::-1]
        converted[:] = images
        heads = baseline.runner_for(shape).infer(converted)
        return decode(heads.heatmaps, heads.tags, LIVE_OPTIONS)

    people(pictures[0])
    started = time.perf_counter()
    for picture in pictures:
        people(picture)
    return len(pictures) / (time.perf_counter() - started)


def parts_row(step: DeviceStep, frame_wh: tuple[int, int]) -> list[str]:
    """Device microseconds of a frame's parts, of the engine and of the whole frame, each a graph; bytes back."""
    picture = scaled_clip(frame_wh)[0]
    parts = {name: 1e3 * float(np.median(ms)) for name, ms in step.time_parts(picture, seconds=1.0).items()}
    engine_us, frame_us = (
        1e3 * float(np.median(times(frame_wh, seconds=1.0))) for times in (step.time_engine, step.time_frame)
    )
    return [
        f"{frame_wh[0]}x{frame_wh[1]}",
        *(f"{parts[name]:.1f}" for name in PARTS),
        f"{engine_us:.1f}",
        f"{frame_us:.1f}",
        f"{frame_us / engine_us:.3f}",
        str(step.bytes_back),
    ]


def batch_cell(step: DeviceStep, frame_wh: tuple[int, int]) -> str:
    try:
        return f"{batch_fps(step, frame_wh):.1f}"
    except PoseError as error:  # a plan of one shape, or a full GPU
        print(f"batch of {BATCH}: {error}", file=sys.stderr)
        return "-"


def row(
    pose: PosePipeline, baseline: PosePipeline | None, frame_wh: tuple[int, int], frames: int, *, brief: bool = False
) -> list[str]:
    """The cells under HEADER. brief: neither a batch nor plain launches."""
    step = pose.step
    assert isinstance(step, DeviceStep)
    pose.warm_up(frame_wh)
    engine_ms = np.percentile(step.time_engine(frame_wh, seconds=2.0), (50, 95))
    batch = "-" if brief else batch_cell(step, frame_wh)
    graphs = measure(pose, frame_wh, frames)
    step.graphs = False
    plain = None if brief else measure(pose, frame_wh, frames)
    step.graphs = True
    torch = measure(baseline, frame_wh, max(20, frames // 5)) if baseline is not None else None
    in_numpy = authors_fps(baseline.step, frame_wh) if baseline and isinstance(baseline.step, HostStep) else None
    alone = 1e3 / engine_ms[0]
    _, h, w = step.input_shape(frame_wh)
    return [
        f"{frame_wh[0]}x{frame_wh[1]}",
        f"{h}x{w}",
        f"{engine_ms[0]:.3f} / {engine_ms[1]:.3f}",
        f"{alone:.1f}",
        batch,
        f"{graphs.fps:.1f}",
        f"{graphs.people:.1f}",
        f"{graphs.fps / alone:.2f}",
        f"{plain.fps:.1f}" if plain is not None else "-",
        f"{torch.fps:.1f}" if torch is not None else "-",
        f"{graphs.fps / torch.fps:.2f}" if torch is not None else "-",
        f"{in_numpy:.2f}" if in_numpy is not None else "-",
        " / ".join(f"{value:.2f}" for value in np.percentile(graphs.latency_ms, (50, 95, 99))),
    ]


HEADER = (
    "frame", "input", "engine ms p50 / p95", "engine FPS", f"engine FPS, batch {BATCH}", "pipeline FPS",
    "people a frame", "of engine", "without graph", "PyTorch, host decode", "times that",
    "PyTorch, authors' decode", "latency ms p50 / p95 / p99",
)  # fmt: skip
PARTS = ("upload", "preprocess", "infer", "group", "download")
PARTS_HEADER = ("frame", *(f"{name} us" for name in PARTS), "engine us", "frame us", "of engine", "bytes back")


def size(text: str) -> tuple[int, int]:
    """1920x1080 as (width, height), for argparse."""
    width, height = map(int, text.split("x"))
    return width, height


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.frame_step", description=__doc__)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--frames", type=int, default=1000, help="of each measurement (1000)")
    parser.add_argument("--sizes", type=size, nargs="+", default=SIZES_WH, metavar="WxH", help="of the frames (four)")
    parser.add_argument("--people", type=int, metavar="N", help="decode drawn crowds of N, not the network's outputs")
    parser.add_argument("--flip", action="store_true", help="average each frame's maps with its mirror image's")
    parser.add_argument("--brief", action="store_true", help="no batch of eight, no plain launches, no plain PyTorch")
    parser.add_argument("--gpu", type=int, default=0, metavar="N", help="of those that are visible (0)")
    options = parser.parse_args()
    gpu, words = find_gpu(options.gpu)
    if gpu is None:
        print(f"frame_step: {words}; expected an NVIDIA GPU", file=sys.stderr)
        return 2
    print(words)
    try:
        with PosePipeline(
            options.model, engine=options.engine, gpu=options.gpu, flip=options.flip, options=LIVE_OPTIONS
        ) as pose:
            print(f"{pose.step.about}\n")
            if not isinstance(pose.step, DeviceStep):
                print("frame_step: this engine does not run on the GPU", file=sys.stderr)
                return 2
            if options.people is not None:
                draw_people(pose.step, options.people)
            baseline = None
            has_weights = Path(options.model).suffix not in (ONNX_SUFFIX, PLAN_SUFFIX)
            if has_weights and not options.brief and importlib.util.find_spec("torch") is not None:
                from benchmarks.host_torch import host_step

                where = f"cuda:{options.gpu}"
                spec, flip = pose.step.spec, options.flip
                step = host_step(options.model, spec, LIVE_OPTIONS, where, options.people, flip=flip)
                baseline = PosePipeline(step=step)
            print(f"| {' | '.join(HEADER)} |\n| --- | --- |{' ---: |' * (len(HEADER) - 2)}")
            for frame_wh in options.sizes:
                cells = row(pose, baseline, frame_wh, options.frames, brief=options.brief)
                print(f"| {' | '.join(cells)} |", flush=True)
            print(f"\n| {' | '.join(PARTS_HEADER)} |\n| --- |{' ---: |' * (len(PARTS_HEADER) - 1)}")
            for frame_wh in options.sizes:
                print(f"| {' | '.join(parts_row(pose.step, frame_wh))} |", flush=True)
            if baseline is not None:
                baseline.close()
    except (PoseError, ValueError) as error:
        print(f"frame_step: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
