"""How long each stage took: Recorder while frames run, Summary afterwards, and the forms in which it is shown."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from core.errors import SinkError
from pipeline.sources.several import SourceState

if TYPE_CHECKING:
    from rich.table import Table

STAGES_OF_A_PASS = ("preprocess", "infer", "group")
STAGES = ("capture", *STAGES_OF_A_PASS, "draw", "encode")
MAX_SPANS = 36_000  # per stage: the last 20 minutes at 30 FPS; a camera may run for weeks


class Ring:
    """A ring buffer of the newest `capacity` rows of `width` floats. All threads may append.

    Its memory is allocated once, so that a run of weeks needs no more than one of a minute.
    """

    def __init__(self, capacity: int, width: int = 1) -> None:
        self._rows = np.full((capacity, width), np.nan)
        self._appended = 0
        self._lock = threading.Lock()

    def append(self, *row: float) -> None:
        with self._lock:
            self._rows[self._appended % len(self._rows)] = row
            self._appended += 1

    def clear(self) -> None:
        with self._lock:
            self._appended = 0

    def __len__(self) -> int:
        return min(self._appended, len(self._rows))

    def rows(self) -> NDArray[np.float64]:
        """(n, width), oldest first."""
        with self._lock:
            if self._appended <= len(self._rows):
                return self._rows[: self._appended].copy()
            return np.roll(self._rows, -(self._appended % len(self._rows)), axis=0)


class Recorder:
    """Start and stop of every stage on every frame, in `time.perf_counter()` seconds. All threads may record."""

    def __init__(self) -> None:
        self.dropped = 0
        self.spans: dict[str, Ring] = {}  # stage -> rows of start and stop

    def record(self, stage: str, start: float, stop: float) -> None:
        spans = self.spans.get(stage)
        if spans is None:
            spans = self.spans.setdefault(stage, Ring(MAX_SPANS, 2))
        spans.append(start, stop)

    def milliseconds(self, stage: str, *, since: float = 0.0) -> list[float]:
        """Durations of the spans that started at `since` or later."""
        if stage not in self.spans:
            return []
        rows = self.spans[stage].rows()
        return [float(ms) for ms in np.diff(rows[rows[:, 0] >= since])[:, 0] * 1e3]


@dataclass(frozen=True)
class Percentiles:
    p50: float
    p95: float
    p99: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Percentiles:
        """values: at least one."""
        p50, p95, p99 = np.percentile(np.asarray(values, np.float64), (50, 95, 99))
        return cls(float(p50), float(p95), float(p99))

    def rounded(self) -> dict[str, float]:
        return {name: round(value, 3) for name, value in vars(self).items()}


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The figures of a run.

    frames, people: totals of all results. fps: frames per second, from the first frame until the last sink is closed.
    engine_fps: of the engine alone on the same input; None if it was not measured.
    stages: percentiles in milliseconds; latency: from capture to result.
    device: percentiles of a frame's parts on a GPU, by the GPU's clock. On a GPU, the stages "infer" and "group"
        measure only the launch and the wait.
    input_wh: of the network; batch: images per pass (2 per frame with flip).
    frames_per_pass: in preprocess, infer and group. concurrent_passes: passes of the network at the same time.
    """

    frames: int
    dropped: int
    fps: float
    engine_fps: float | None
    people: int
    stages: dict[str, Percentiles]
    latency: Percentiles | None
    device: dict[str, Percentiles] = field(default_factory=dict)
    engine: str
    model: str
    input_wh: tuple[int, int]
    precision: str
    batch: int
    frames_per_pass: int = 1
    concurrent_passes: int = 1
    sources: tuple[SourceState, ...] = ()  # of several live sources

    def to_json(self, machine: Mapping[str, str] | None = None) -> str:
        """One line, the format of `--stats json`. machine: its description, added to the figures of a benchmark."""
        document: dict[str, object] = {
            "frames": self.frames,
            "dropped": self.dropped,
            "fps": round(self.fps, 3),
            "engine_fps": None if self.engine_fps is None else round(self.engine_fps, 3),
            "people": self.people,
            "stages_ms": {stage: p.rounded() for stage, p in self.stages.items()},
            "engine": self.engine,
            "model": self.model,
            "input": list(self.input_wh),
        }
        if self.sources:
            document["sources"] = [
                {**asdict(one), "age_s": None if one.age_s is None else round(one.age_s, 3)} for one in self.sources
            ]
        if machine is not None:
            document["latency_ms"] = None if self.latency is None else self.latency.rounded()
            if self.device:
                document["device_ms"] = {part: p.rounded() for part, p in self.device.items()}
            document |= {"precision": self.precision, "batch": self.batch, "machine": dict(machine)}
        return json.dumps(document)

    def table(self) -> Table:
        """A table for rich: a row per stage, with its throughput if it ran alone, and the latency."""
        from rich.table import Table

        table = Table(title=None, show_edge=False, pad_edge=False, header_style="bold")
        table.add_column("stage")
        for column in ("p50 ms", "p95 ms", "p99 ms", "FPS alone"):
            table.add_column(column, justify="right")
        for stage, p in self.stages.items():
            frames = self.frames_per_pass if stage in STAGES_OF_A_PASS else 1
            concurrency = self.concurrent_passes if stage == "infer" else 1
            rate = f"{1e3 * frames * concurrency / p.p50:,.1f}" if p.p50 > 0 else "-"
            table.add_row(stage, f"{p.p50:.2f}", f"{p.p95:.2f}", f"{p.p99:.2f}", rate)
        if self.device:
            table.add_section()
        for part, p in self.device.items():
            table.add_row(f"GPU {part}", f"{p.p50:.3f}", f"{p.p95:.3f}", f"{p.p99:.3f}", "")
        if self.latency is not None:
            table.add_section()
            table.add_row("latency", *(f"{v:.2f}" for v in vars(self.latency).values()), "")
        return table

    def source_lines(self) -> list[str]:
        """One line per live source: its state and its numbers of used and dropped frames."""
        return [
            f"{one.name}: {one.state}, {one.frames} frames, {one.dropped} dropped{f'; {one.text}' if one.text else ''}"
            for one in self.sources
        ]

    def sentence(self) -> str:
        """End to end, in one line."""
        people = f"{self.people / self.frames:.1f} people a frame" if self.frames else "no people"
        line = f"{self.frames} frames, {self.fps:.1f} FPS end to end, {people}"
        if self.engine_fps:
            line += f"; engine alone {self.engine_fps:.1f} FPS, ratio {self.fps / self.engine_fps:.2f}"
        return line + (f"; {self.dropped} frames dropped" if self.dropped else "")


@dataclass
class Meter:
    """Counts results. In runs of more than `skip` frames, the first `skip` are warm-up and excluded from timings."""

    skip: int = 0
    frames: int = 0
    people: int = 0
    latency_ms: Ring = field(default_factory=lambda: Ring(MAX_SPANS))
    started: float = 0.0
    warm_at: float = 0.0  # end of the warm-up
    stopped: float | None = None

    def start(self) -> None:
        self.started = self.warm_at = time.perf_counter()

    def count(self, people: int, latency_ms: float) -> None:
        """Count a frame that all sinks have written."""
        self.frames += 1
        self.people += people
        if self.frames == self.skip:
            self.warm_at = time.perf_counter()
        if self.frames == self.skip + 1:
            self.latency_ms.clear()
        self.latency_ms.append(latency_ms)

    def stop(self) -> None:
        """End the measurement, after the outputs are closed: encoders write their last frames then."""
        self.stopped = time.perf_counter()

    @property
    def fps(self) -> float:
        """Frames per second so far, or until `stop`."""
        until = self.stopped if self.stopped is not None else time.perf_counter()
        frames, since = (self.frames - self.skip, self.warm_at) if self._is_warm else (self.frames, self.started)
        return frames / (until - since) if until > since else 0.0

    def stages(self, recorder: Recorder) -> dict[str, Percentiles]:
        """Percentiles of the stages that ran, in pipeline order."""
        since = self.warm_at if self._is_warm else 0.0
        measured = {stage: recorder.milliseconds(stage, since=since) for stage in STAGES}
        return {stage: Percentiles.of(values) for stage, values in measured.items() if values}

    def latency(self) -> Percentiles | None:
        return Percentiles.of(self.latency_ms.rows()[:, 0].tolist()) if len(self.latency_ms) else None

    @property
    def _is_warm(self) -> bool:
        return 0 < self.skip < self.frames


def check_plot(path: Path) -> None:
    """Raises ValueError if matplotlib writes no file of this name, SinkError if it is not installed."""
    try:
        from matplotlib.backend_bases import FigureCanvasBase
    except ImportError as error:
        raise SinkError("--plot needs matplotlib, which is not installed; pip install matplotlib") from error
    known = sorted(FigureCanvasBase.get_supported_filetypes())
    if path.suffix[1:].lower() not in known:
        raise ValueError(f"--plot {path}: expected a name that ends in one of .{', .'.join(known)}")


def save_plot(recorder: Recorder, path: Path, *, frames: int = 30) -> None:
    """Plot the stages of the last `frames` frames over time as bars, which show overlap, stalls and the slowest stage.

    Raises SinkError if matplotlib is not installed or the file cannot be written.
    """
    try:
        import matplotlib as mpl

        mpl.use("Agg")
        from matplotlib import pyplot as plt
    except ImportError as error:
        raise SinkError("--plot needs matplotlib, which is not installed; pip install matplotlib") from error

    stages = [stage for stage in STAGES if stage in recorder.spans]
    if not stages:
        raise SinkError(f"{path}: no frame was measured, so there is nothing to plot")
    plotted = {stage: sorted(recorder.spans[stage].rows()[-frames:].tolist()) for stage in stages}
    origin = min(start for spans in plotted.values() for start, _ in spans)
    figure, axes = plt.subplots(figsize=(12, 0.55 * len(stages) + 1.4))
    for row, stage in enumerate(stages):
        lanes = _lanes(plotted[stage])
        height = 0.8 / (1 + max(lanes))
        for number, (lane, (start, stop)) in enumerate(zip(lanes, plotted[stage], strict=True)):
            # two alternating shades separate consecutive bars of a lane
            colour = f"C{row}" if lanes[:number].count(lane) % 2 == 0 else _lighter(f"C{row}")
            bar, span = (row - 0.4 + lane * height, height), ((start - origin) * 1e3, (stop - start) * 1e3)
            axes.broken_barh([span], bar, facecolors=[colour], edgecolors="face", lw=0.8)
    axes.set_yticks(range(len(stages)), stages)
    axes.invert_yaxis()
    axes.set_xlabel("ms")
    axes.set_title(f"Stages over the last {max(map(len, plotted.values()))} frames")
    axes.grid(axis="x", alpha=0.3)
    figure.tight_layout()
    try:
        figure.savefig(path, dpi=120)
    except (OSError, ValueError) as error:
        raise SinkError(f"{path} cannot be written: {error}") from error
    finally:
        plt.close(figure)


def _lanes(spans: Sequence[tuple[float, float]]) -> list[int]:
    """For each span the first lane that is free at its start, so that concurrent spans do not overlap in the plot."""
    lanes: list[int] = []
    free_at: list[float] = []
    for start, stop in spans:
        lane = next((lane for lane, free in enumerate(free_at) if free <= start), len(free_at))
        free_at[lane : lane + 1] = [stop]
        lanes.append(lane)
    return lanes


def _lighter(color: str) -> tuple[float, float, float]:
    from matplotlib.colors import to_rgb

    r, g, b = to_rgb(color)
    return (1 + r) / 2, (1 + g) / 2, (1 + b) / 2
