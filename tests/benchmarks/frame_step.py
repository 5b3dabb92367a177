"""The whole frame against the engine alone, on a GPU: python -m tests.benchmarks.frame_step [--model …] [--engine …].

Frames lie ready in memory, so that neither decoding a video nor a camera is in the figures. In one run: the engine
alone by CUDA events, then the pipeline with graphs, then with plain launches; each size in turn.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator

import numpy as np

from engine.errors import PoseError
from engine.gpu import find_gpu
from pipeline import PosePipeline
from pipeline.sources import Source
from pipeline.types import Frame

SIZES_WH = ((512, 512), (640, 480), (1280, 720), (1920, 1080))


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


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.frame_step", description=__doc__)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--frames", type=int, default=1000, help="of each measurement")
    options = parser.parse_args()
    gpu, words = find_gpu()
    if gpu is None:
        print(f"frame_step: {words}; expected an NVIDIA GPU", file=sys.stderr)
        return 2
    print(words)
    print("frame        engine ms p50   p95   FPS alone   graphs FPS  share   plain FPS   latency ms p50   p95   p99")
    try:
        with PosePipeline(options.model, engine=options.engine) as pose:
            print(pose.step.about)
            for frame_wh in SIZES_WH:
                pose.warm_up(frame_wh)
                engine_ms = np.percentile(pose.step.time_engine(frame_wh, seconds=2.0), (50, 95))
                fps, latency_ms = measure(pose, frame_wh, options.frames)
                pose.step.graphs = False  # type: ignore[attr-defined]  # a switch of DeviceStep
                plain_fps, _ = measure(pose, frame_wh, options.frames)
                pose.step.graphs = True  # type: ignore[attr-defined]
                p50, p95, p99 = np.percentile(latency_ms, (50, 95, 99))
                alone = 1e3 / engine_ms[0]
                print(
                    f"{frame_wh[0]:4}x{frame_wh[1]:<4}  {engine_ms[0]:12.3f} {engine_ms[1]:5.2f} {alone:11.1f} "
                    f"{fps:12.1f} {fps / alone:6.2f} {plain_fps:11.1f} {p50:16.2f} {p95:5.2f} {p99:5.2f}"
                )
    except (PoseError, ValueError) as error:
        print(f"frame_step: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
