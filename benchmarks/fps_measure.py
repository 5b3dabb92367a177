"""Measure one combination of engine, model, size and flip in one round, and summarise its rounds."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from core.errors import PoseError, StageError
from pipeline import PosePipeline, open_source
from pipeline.stats import Meter, Percentiles

WARM_UP_FRAMES = 10  # of a run; excluded from all figures
MOST_SINGLE_FRAMES = 40  # at most, for latency: one frame at a time
FRAME_WH = (640, 480)  # where the source does not give its size


@dataclass(frozen=True)
class Combination:
    engine: str
    model: str
    size: int | None  # short side; None: the model's own
    batch: int  # frames a pass
    flip: bool

    @property
    def words(self) -> str:
        """A short name for lists."""
        size = f"size {self.size}" if self.size else ""
        batch = f"batch {self.batch}" if self.batch > 1 else ""
        return " ".join(filter(None, [self.engine, Path(self.model).name, size, batch, "flip" * self.flip]))


@dataclass(frozen=True)
class Settings:
    """source: a video file. frames: of a run, after its warm-up. seconds: of the engine alone, three times a round."""

    source: Path
    frames: int
    seconds: float


@dataclass(frozen=True)
class Skipped:
    """A combination that was not measured. failed: it started, and then an error occurred."""

    combination: Combination
    reason: str
    failed: bool = False


@dataclass(frozen=True)
class Round:
    """input_shape: (N, H, W) of the network. The lists hold milliseconds of each pass and frame."""

    precision: str
    input_shape: tuple[int, int, int]
    frames: int
    people: int
    fps: float
    engine_fps: float
    pass_ms: list[float]
    latency_ms: list[float]


@dataclass(frozen=True)
class Measured:
    """Over the rounds of one combination: medians, the lowest and highest FPS, percentiles of all passes and frames."""

    combination: Combination
    precision: str
    input_shape: tuple[int, int, int]
    frames: int
    people_a_frame: float
    fps: float
    fps_range: tuple[float, float]
    engine_fps: float
    engine_pass: Percentiles
    latency: Percentiles

    @property
    def of_engine(self) -> float:
        """End to end over the engine alone."""
        return self.fps / self.engine_fps


def measure(combination: Combination, settings: Settings) -> Round | Skipped:
    """Measure one round. Returns Skipped with the reason if the pipeline cannot be opened here, or fails."""
    try:
        pose = PosePipeline(
            combination.model,
            engine=combination.engine,
            size=combination.size,
            batch=combination.batch,
            flip=combination.flip,
        )
    except (PoseError, ValueError, OSError) as error:
        return Skipped(combination, _one_line(error))
    with pose:
        try:
            return _measure(pose, settings)
        except (PoseError, ValueError, OSError) as error:
            # some engines build their plan only now; an error in that counts as skipped, not failed
            return Skipped(combination, _one_line(error), failed=isinstance(error, StageError))


def _measure(pose: PosePipeline, settings: Settings) -> Round:
    with open_source(str(settings.source)) as source:
        frame_wh = source.frame_wh or FRAME_WH
    pose.warm_up(frame_wh)
    step, seconds = pose.step, settings.seconds
    engine_ms = step.time_engine(frame_wh, seconds=seconds, concurrent=True)
    meter = _throughput(pose, settings)
    engine_ms += step.time_engine(frame_wh, seconds=seconds, concurrent=True)
    return Round(
        precision=step.precision,
        input_shape=step.input_shape(frame_wh),
        frames=meter.frames,
        people=meter.people,
        fps=meter.fps,
        engine_fps=1e3 * step.batch / statistics.median(engine_ms),
        pass_ms=step.time_engine(frame_wh, seconds=seconds),
        latency_ms=_latencies(pose, settings),
    )


def _throughput(pose: PosePipeline, settings: Settings) -> Meter:
    meter = Meter(skip=WARM_UP_FRAMES)
    source = open_source(str(settings.source))  # the run closes it
    meter.start()
    for result in pose.run(source, limit=WARM_UP_FRAMES + settings.frames):
        meter.count(len(result.people), result.timings["latency"])
    meter.stop()
    if not meter.frames:
        raise ValueError(f"{settings.source} has no frames")
    return meter


def _latencies(pose: PosePipeline, settings: Settings) -> list[float]:
    """Milliseconds from reading a frame to its people, stage after stage."""
    source = open_source(str(settings.source))
    limit = WARM_UP_FRAMES + min(settings.frames, MOST_SINGLE_FRAMES)
    found = [result.timings["latency"] for result in pose.run(source, limit=limit, serial=True)]
    return found[WARM_UP_FRAMES:] or found


def summarise(combination: Combination, rounds: Sequence[Round]) -> Measured:
    """Medians and percentiles over at least one round."""
    frames = sum(one.frames for one in rounds)
    fps = [one.fps for one in rounds]
    return Measured(
        combination=combination,
        precision=rounds[-1].precision,
        input_shape=rounds[-1].input_shape,
        frames=frames,
        people_a_frame=sum(one.people for one in rounds) / frames,
        fps=statistics.median(fps),
        fps_range=(min(fps), max(fps)),
        engine_fps=statistics.median(one.engine_fps for one in rounds),
        engine_pass=Percentiles.of([ms for one in rounds for ms in one.pass_ms]),
        latency=Percentiles.of([ms for one in rounds for ms in one.latency_ms]),
    )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
