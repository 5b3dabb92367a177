"""The whole frame against the engine alone, on a GPU: python -m benchmarks.frame_step [--model …] [--engine …].

Frames lie ready in memory, so that neither decoding a video nor a camera is in the figures. In one run, each size in
turn: the engine alone by CUDA events, for one image and for a batch of eight; the pipeline with graphs; with plain
launches; and plain PyTorch with host decoding (host_torch.py), where torch is installed and the model has weights.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from core.errors import PoseError
from engine.gpu import find_gpu
from pipeline import PosePipeline
from pipeline.device_step import DeviceStep
from pipeline.models import ONNX_SUFFIX, PLAN_SUFFIX
from pipeline.pose import LIVE_OPTIONS
from pipeline.sources import Source
from pipeline.types import Frame

SIZES_WH = (
    (512, 512),
    (640, 480),
    (1280, 720),
    (1920, 1080),
)  # at a short side of 512: 512x512, 512x704, 512x960 twice
BATCH = 8


class Ready(Source):
    """Frames that were drawn beforehand, as fast as they are taken."""

    def __init__(self, frame_wh: tuple[int, int], frames: int) -> None:
        rng = np.random.default_rng(0)
        self.pictures = [rng.integers(0, 255, (frame_wh[1], frame_wh[0], 3), np.uint8) for _ in range(8)]
        self.frames, self.frame_wh = frames, frame_wh

    def __iter__(self) -> Iterator[Frame]:
        for index in range(self.frames):
            yield Frame(self.pictures[index % 8], index, captured_at=time.monotonic())


def measure(pose: PosePipeline, frame_wh: tuple[int, int], frames: int) -> tuple[float, list[float]]:
    """Frames per second end to end, and each frame's latency in ms."""
    pose.warm_up(frame_wh)
    started = time.perf_counter()
    latency_ms = [result.timings["latency"] for result in pose.run(Ready(frame_wh, frames))]
    return frames / (time.perf_counter() - started), latency_ms


def batch_fps(step: DeviceStep, frame_wh: tuple[int, int], passes: int = 50) -> float:
    """Images per second of the engine alone, BATCH at a time, passes queued one behind the other."""
    device = step.device
    with device.current():
        network = step._network_for((BATCH, *step.input_shape(frame_wh)[1:]))
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


def row(pose: PosePipeline, baseline: PosePipeline | None, frame_wh: tuple[int, int], frames: int) -> list[str]:
    step: Any = pose.step
    pose.warm_up(frame_wh)
    engine_ms = np.percentile(step.time_engine(frame_wh, seconds=2.0), (50, 95))
    try:
        batch = f"{batch_fps(step, frame_wh):.1f}"
    except PoseError as error:  # a plan of one shape, or a full GPU
        batch = "-"
        print(f"batch of {BATCH}: {error}", file=sys.stderr)
    fps, latency_ms = measure(pose, frame_wh, frames)
    step.graphs = False
    plain_fps, _ = measure(pose, frame_wh, frames)
    step.graphs = True
    torch_fps = measure(baseline, frame_wh, max(20, frames // 5))[0] if baseline is not None else None
    alone = 1e3 / engine_ms[0]
    _, h, w = step.input_shape(frame_wh)
    return [
        f"{frame_wh[0]}x{frame_wh[1]}",
        f"{h}x{w}",
        f"{engine_ms[0]:.3f} / {engine_ms[1]:.3f}",
        f"{alone:.1f}",
        batch,
        f"{fps:.1f}",
        f"{fps / alone:.2f}",
        f"{plain_fps:.1f}",
        f"{torch_fps:.1f}" if torch_fps is not None else "-",
        f"{fps / torch_fps:.2f}" if torch_fps is not None else "-",
        " / ".join(f"{value:.2f}" for value in np.percentile(latency_ms, (50, 95, 99))),
    ]


HEADER = (
    "frame", "input", "engine ms p50 / p95", "engine FPS", f"engine FPS, batch {BATCH}", "pipeline FPS", "of engine",
    "without graph", "PyTorch, host decode", "times that", "latency ms p50 / p95 / p99",
)  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.frame_step", description=__doc__)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--frames", type=int, default=1000, help="of each measurement (1000)")
    options = parser.parse_args()
    gpu, words = find_gpu()
    if gpu is None:
        print(f"frame_step: {words}; expected an NVIDIA GPU", file=sys.stderr)
        return 2
    print(words)
    try:
        with PosePipeline(options.model, engine=options.engine) as pose:
            print(f"{pose.step.about}\n")
            if not isinstance(pose.step, DeviceStep):
                print("frame_step: this engine does not run on the GPU", file=sys.stderr)
                return 2
            baseline = None
            has_weights = Path(options.model).suffix not in (ONNX_SUFFIX, PLAN_SUFFIX)
            if has_weights and importlib.util.find_spec("torch") is not None:
                from benchmarks.host_torch import host_step

                baseline = PosePipeline(step=host_step(options.model, pose.step.spec, LIVE_OPTIONS))
            print(f"| {' | '.join(HEADER)} |\n| --- | --- |{' ---: |' * (len(HEADER) - 2)}")
            for frame_wh in SIZES_WH:
                print(f"| {' | '.join(row(pose, baseline, frame_wh, options.frames))} |", flush=True)
            if baseline is not None:
                baseline.close()
    except (PoseError, ValueError) as error:
        print(f"frame_step: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
