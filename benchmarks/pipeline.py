"""Time the pipeline around an engine that only sleeps: python -m benchmarks.pipeline [--repeat N] [--check]

    throughput   an engine of 20 ms a frame between real stages: FPS over the FPS of the slowest stage alone
    overhead     stages of 0 ms: cost of threads, channels and slots per frame
    real         the bundled model on the sample clip, with the engine that `auto` selects: FPS over the engine's alone

The best of the repeats counts, since the others are slowed by the machine. --check exits 1 if a limit is missed.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.spec import ModelSpec
from engine.onnx_runner import usable_cores
from engine.runner import Heads
from kernels.cpu import warm_up
from pipeline import LIVE_OPTIONS, Frame, People, PosePipeline, Source, open_source
from pipeline.stats import Percentiles, Recorder
from pipeline.step import SLOTS, HostStep, PassOptions

FRAME_WH = (640, 480)
NOBODY = People.nobody()
CLIP = Path(__file__).parents[2] / "samples" / "crowd.mp4"


class Sleeper:
    """A Runner that sleeps and returns empty maps."""

    engine = "sleeper"
    spec = ModelSpec(name="sleeper", short_side=256)

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.heads = Heads(np.zeros((1, 17, 128, 192), np.float32), np.zeros((1, 17, 64, 96), np.float32))

    def infer(self, images: object) -> Heads:
        if self.seconds:
            time.sleep(self.seconds)
        return self.heads


class Still(Source):
    """The same picture, `count` times, delivered as fast as it is taken."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.frame = Frame(np.random.default_rng(0).integers(0, 255, (*FRAME_WH[::-1], 3), dtype=np.uint8))

    def __iter__(self) -> Iterator[Frame]:
        for index in range(self.count):
            yield replace(self.frame, index=index, captured_at=time.monotonic())


class Nothing:
    """A FrameStep whose every stage takes 0 ms."""

    spec, engine, about, slots, concurrency, batch = Sleeper.spec, "nothing", "", SLOTS, 1, 1
    precision, device = "fp32", None

    def prepare(self, slot: int, pictures: object) -> None:
        pass

    def infer(self, slot: int) -> None:
        pass

    def infer_concurrent(self, slot: int) -> None:
        pass

    def finish(self, slot: int) -> list[People]:
        return [NOBODY]

    def drain(self) -> None:
        pass

    def input_shape(self, frame_wh: tuple[int, int]) -> tuple[int, int, int]:
        return 1, 64, 64

    def warm_up(self, frame_wh: tuple[int, int]) -> None:
        pass

    def time_engine(self, frame_wh: tuple[int, int], *, seconds: float, concurrent: bool = False) -> list[float]:
        return [0.0] * 3

    def time_parts(self, image: NDArray[np.uint8], *, seconds: float) -> dict[str, list[float]]:
        return {}

    def close(self) -> None:
        pass


def sleeper(seconds: float) -> PosePipeline:
    runner: Any = Sleeper(seconds)
    return PosePipeline(
        step=HostStep(lambda shape: runner, runner.spec, PassOptions(decode=LIVE_OPTIONS), engine="sleeper")
    )


def timed(pose: PosePipeline, source: Source) -> tuple[float, Recorder]:
    """Seconds per frame, and the recorder of the stages."""
    recorder = Recorder()
    started = time.perf_counter()
    frames = sum(1 for _ in pose.run(source, recorder=recorder))
    return (time.perf_counter() - started) / frames, recorder


def throughput(frames: int) -> float:
    """The p50 of the slowest stage divided by the time per frame."""
    with sleeper(0.020) as pose:
        pose.warm_up(FRAME_WH)
        seconds, recorder = timed(pose, Still(frames))
    slowest = max(Percentiles.of(recorder.milliseconds(stage)).p50 for stage in recorder.spans)
    return slowest / (seconds * 1e3)


def overhead(frames: int) -> float:
    """Milliseconds per frame if no stage does anything: threads, channels, slots and results."""
    with PosePipeline(step=Nothing()) as pose:
        return timed(pose, Still(10 * frames))[0] * 1e3


def real(frames: int) -> float:
    """FPS end to end, without sinks, divided by the FPS of the engine alone, measured just before and after."""
    with PosePipeline("tiny") as pose, open_source(CLIP) as source:
        assert source.frame_wh is not None
        pose.warm_up(source.frame_wh)
        before = pose.step.time_engine(source.frame_wh, seconds=1.5, concurrent=True)
        started = time.perf_counter()
        count = sum(1 for _ in pose.run(source, limit=frames))
        seconds = (time.perf_counter() - started) / count
        after = pose.step.time_engine(FRAME_WH, seconds=1.5, concurrent=True)
    return Percentiles.of(before + after).p50 / (seconds * 1e3)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=5, help="runs of each, of which the best counts (5)")
    parser.add_argument("--frames", type=int, default=150, help="frames a run (150)")
    parser.add_argument("--check", action="store_true", help="exit 1 if a best value misses its limit")
    arguments = parser.parse_args()

    warm_up()
    print(f"{platform.processor() or platform.machine()}, {usable_cores()} cores, Python {platform.python_version()}")
    kept = [
        report("throughput", throughput, arguments, at_least=0.95, unit="of the slowest stage"),
        report("overhead", overhead, arguments, at_most=1.0, unit="ms a frame"),
        report("real", real, arguments, at_least=0.85, unit="of the engine alone"),
    ]
    return 1 if arguments.check and not all(kept) else 0


def report(
    name: str,
    measure: Callable[[int], float],
    arguments: argparse.Namespace,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    unit: str,
) -> bool:
    """Print the best of the repeats, and return whether it is within its limit."""
    values = [measure(arguments.frames) for _ in range(arguments.repeat)]
    value = min(values) if at_most is not None else max(values)
    kept = value <= at_most if at_most is not None else value >= (at_least or 0)
    limit = f"at most {at_most}" if at_most is not None else f"at least {at_least}"
    runs = ", ".join(f"{v:.3f}" for v in values)
    print(f"{name:12}{value:6.3f} {unit}, {limit}: {'kept' if kept else 'missed'} ({runs})")
    return kept


if __name__ == "__main__":
    sys.exit(main())
