"""The report of a sweep: fps.md, fps.json and fps.png in one folder."""

from __future__ import annotations

import importlib.util
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.fps_measure import Measured, Skipped
from core.files import write_whole
from pipeline.stats import Percentiles

logger = logging.getLogger(__name__)

COLUMNS = {  # name: alignment in Markdown
    "engine": "---",
    "precision": "---",
    "model": "---",
    "input": "---",
    "batch": "---:",
    "flip": "---",
    "people a frame": "---:",
    "FPS": "---:",
    "lowest to highest": "---:",
    "engine FPS": "---:",
    "FPS of engine": "---:",
    "pass ms p50 / p95 / p99": "---:",
    "latency ms p50 / p95 / p99": "---:",
}
HEADER = f"| {' | '.join(COLUMNS)} |\n| {' | '.join(COLUMNS.values())} |\n"
BAR_HEIGHT_INCHES = 0.62
TEXT_SHARE = 0.42  # of the axis: width of a bar's text
ENGINE_COLOURS = {
    "openvino": "#0068b5",
    "onnxruntime": "#8a8d91",
    "tensorrt": "#76b900",
    "tensorrt-rtx": "#3f6600",
    "torch": "#ee4c2c",
}
OTHER_COLOUR = "#444444"


def write_report(
    folder: Path,
    measured: Sequence[Measured],
    skipped: Sequence[Skipped],
    machine: Mapping[str, str],
    *,
    source: Path,
    command: str,
) -> None:
    """Write all three; no picture if nothing was measured or matplotlib is missing. Raises OSError."""
    write_whole(folder / "fps.md", markdown(measured, skipped, machine, source=source, command=command).encode())
    document = {
        "command": command,
        "source": str(source),
        "machine": dict(machine),
        "measured": [row_of(one) for one in measured],
        "skipped": [{**vars(one.combination), "reason": one.reason, "failed": one.failed} for one in skipped],
    }
    write_whole(folder / "fps.json", (json.dumps(document, indent=1) + "\n").encode())
    if not measured:
        return
    if importlib.util.find_spec("matplotlib") is None:
        logger.warning("fps.png is left out: it needs matplotlib, which is not installed; pip install matplotlib")
        return
    draw(folder / "fps.png", measured, machine)


def markdown(
    measured: Sequence[Measured], skipped: Sequence[Skipped], machine: Mapping[str, str], *, source: Path, command: str
) -> str:
    rows = "".join(_row(one) for one in measured)
    parts = [HEADER + rows] if measured else []
    if skipped:
        by_reason: dict[str, list[str]] = {}
        for one in skipped:
            by_reason.setdefault(one.reason, []).append(one.combination.words)
        lines = (f"* {'; '.join(words)}: {reason}\n" for reason, words in by_reason.items())
        parts.append("Not measured:\n\n" + "".join(lines))
    frames = f", {measured[0].frames} frames a row" if measured else ""
    parts.append(
        "FPS: end to end, from the file to the people, without drawing and writing. Engine: frames a second of the\n"
        "network alone. Pass: one alone, with the whole device. Latency: from a frame that is read to its people, one\n"
        "frame at a time.\n\n"
        f"`{command}` on {source.name}{frames}.\n\n"
        + "".join(f"* {label}: {text}\n" for label, text in machine.items())
    )
    return "\n".join(parts)


def row_of(one: Measured) -> dict[str, object]:
    """The figures of one combination for fps.json."""
    n, h, w = one.input_shape
    return {
        **vars(one.combination),
        "precision": one.precision,
        "input": [n, 3, h, w],
        "frames": one.frames,
        "people_a_frame": round(one.people_a_frame, 3),
        "fps": round(one.fps, 3),
        "fps_range": [round(fps, 3) for fps in one.fps_range],
        "engine_fps": round(one.engine_fps, 3),
        "of_engine": round(one.of_engine, 4),
        "pass_ms": one.engine_pass.rounded(),
        "latency_ms": one.latency.rounded(),
    }


def draw(path: Path, measured: Sequence[Measured], machine: Mapping[str, str]) -> None:
    """Left: FPS end to end, with the engine alone as an outline. Right: latency from p50 to p99. Raises OSError."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    labels = [_label(one) for one in measured]
    places = range(len(measured))
    colours = [ENGINE_COLOURS.get(one.combination.engine, OTHER_COLOUR) for one in measured]
    height = BAR_HEIGHT_INCHES * len(measured) + 1.6
    figure, (speed, latency) = plt.subplots(1, 2, figsize=(12, height), sharey=True, width_ratios=(3, 2))

    speed.barh(places, [one.engine_fps for one in measured], 0.66, fill=False, edgecolor="#777777", lw=1, ls="--")
    speed.barh(places, [one.fps for one in measured], 0.66, color=colours)
    longest = max(max(one.fps, one.engine_fps) for one in measured)
    for place, one in zip(places, measured, strict=True):
        fits = one.fps > TEXT_SHARE * longest
        start, colour = (0.0, "white") if fits else (max(one.fps, one.engine_fps), "black")
        text = f" {one.fps:.1f} FPS, {one.of_engine:.0%} of the engine"
        speed.text(start, place, text, va="center", color=colour)
    speed.set_yticks(places, labels)
    speed.invert_yaxis()
    speed.set_xlabel("frames a second: end to end (filled), engine alone (dashed)")
    speed.set_xlim(0, 1.05 * longest)

    latency.barh(places, [one.latency.p50 for one in measured], 0.66, color=colours, alpha=0.75)
    for place, one in zip(places, measured, strict=True):
        latency.plot((one.latency.p50, one.latency.p99), (place, place), color="black", lw=1.2, marker="|", ms=9)
        latency.text(one.latency.p99, place, f"  {one.latency.p50:.1f} ms", va="center")
    latency.set_xlabel("ms from frame to people: p50 (bar) to p99 (line)")
    latency.set_xlim(0, 1.35 * max(one.latency.p99 for one in measured))

    for axes in (speed, latency):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="x", alpha=0.25)
        axes.set_axisbelow(True)
    figure.suptitle(_title(machine), x=0.01, ha="left", fontsize=11)
    figure.tight_layout()
    try:
        figure.savefig(path, dpi=120)
    finally:
        plt.close(figure)


def _row(one: Measured) -> str:
    n, h, w = one.input_shape
    flip = "yes" if one.combination.flip else "no"
    low, high = one.fps_range
    what = one.combination
    cells = (
        what.engine,
        one.precision,
        Path(what.model).name,
        f"{n}x3x{h}x{w}",
        f"{what.batch}",
        flip,
        f"{one.people_a_frame:.1f}",
        f"**{one.fps:.1f}**",
        f"{low:.1f} to {high:.1f}",
        f"{one.engine_fps:.1f}",
        f"{one.of_engine:.2f}",
        _three(one.engine_pass),
        _three(one.latency),
    )
    return f"| {' | '.join(cells)} |\n"


def _three(p: Percentiles) -> str:
    return f"{p.p50:.1f} / {p.p95:.1f} / {p.p99:.1f}"


def _label(one: Measured) -> str:
    _, h, w = one.input_shape
    flip = ", flip" if one.combination.flip else ""
    batch = f", batch {one.combination.batch}" if one.combination.batch > 1 else ""
    return f"{one.combination.engine} {one.precision}\n{Path(one.combination.model).name} {w}x{h}{batch}{flip}"


def _title(machine: Mapping[str, str]) -> str:
    """The device that was measured: the GPU where there is one."""
    gpu, has_gpu = machine.get("GPU", ""), machine.get("driver", "none") != "none"
    return f"{gpu}; {machine.get('CPU', '')}" if has_gpu else machine.get("CPU", "")
