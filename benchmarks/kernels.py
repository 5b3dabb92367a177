"""Time of each kernel on a GPU: `python -m benchmarks.kernels [--gpu N]`. Prints the tables of benchmarks/RESULTS.md.

Events are recorded between the kernels of a frame. The frame is queued behind a kernel that only waits, so no launch
from Python is measured; an event between two kernels costs about a microsecond. The same sequence is also timed as one
CUDA graph without events inside, which is what the pipeline runs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numba_cuda  # type: ignore[import-untyped]
import numpy as np
from numpy.typing import NDArray

from core.command_line import add_gpu_option
from engine.gpu import find_gpu
from kernels.cuda import Workspace, decode, preprocess
from kernels.cuda._cuda import as_stream, cuda
from kernels.options import DecodeOptions
from tests.kernels.cuda.crowds import draw_crowd
from tests.kernels.cuda.graphs import Stream, destroy, is_pending, microseconds

SIZES = ((512, 512), (512, 704), (512, 960))  # network inputs, H x W
PEOPLE = (1, 3, 10, 30)
BATCH = 20  # frames queued at a time
LONGEST_HOLD = 100_000  # x 100 us: ten seconds are enough for any host to queue a batch
FRAME_HW = (720, 1280)
NORMAL: dict[str, Any] = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
BUDGETS = (
    "Aims on an H200, in a graph: preprocess + decode of 512x704 with 10 people <= 100 us; with 30 people at most "
    "100 us more than with 1."
)


@cuda.jit
def wait_on_device(hundred_microseconds):
    """One thread. Blocks the stream while frames are queued behind it."""
    for _ in range(hundred_microseconds):
        cuda.nanosleep(100_000)


class Frame:
    """One frame with this many people: its buffers and the launches of its kernels."""

    def __init__(self, hw: tuple[int, int], people: int, stream: Stream) -> None:
        rng = np.random.default_rng(people)
        heatmaps, tags = draw_crowd(rng, people, (hw[0] // 2, hw[1] // 2))
        self.heatmaps, self.tags = cuda.to_device(heatmaps), cuda.to_device(tags)
        self.frame = cuda.to_device(rng.integers(0, 256, (*FRAME_HW, 3)).astype(np.uint8))
        self.image = cuda.to_device(np.zeros((1, 3, *hw), np.float16))
        self.scale = min(hw[0] / FRAME_HW[0], hw[1] / FRAME_HW[1])
        self.workspace = Workspace(heatmaps.shape, DecodeOptions())
        self.stream = stream

    def preprocess(self) -> None:
        center = (FRAME_HW[1] / 2, FRAME_HW[0] / 2)
        preprocess(self.frame, self.image, scale=self.scale, center=center, **NORMAL, stream=self.stream.handle)

    def decode(self) -> None:
        decode(self.heatmaps, self.tags, None, self.workspace, stream=self.stream.handle)

    def steps(self) -> list[tuple[str, Callable[[], object]]]:
        """Name and launch of each kernel, in order."""
        maps = self.heatmaps.reshape(self.workspace.full_shape), self.tags.reshape(self.workspace.tags_shape)
        launches = self.workspace.launches(*maps, as_stream(self.stream.handle))
        return [
            ("preprocess", self.preprocess),
            *((name, lambda kernel=kernel, args=args: kernel(*args)) for name, kernel, args in launches),
        ]


def times(stream: Stream, steps: Sequence[Callable[[], object]], runs: int) -> NDArray[np.float64]:
    """Microseconds of each step and of all together, (runs, steps + 1); queued, so that the device is never idle."""
    rows: list[list[float]] = []
    hold = 200  # x 100 us
    while len(rows) < runs:
        wait_on_device[1, 1, as_stream(stream.handle)](hold)
        marks = []
        for _ in range(BATCH):
            events = [stream.event()]
            for step in steps:
                step()
                events.append(stream.event())
            marks.append(events)
        queued_in_time = is_pending(marks[0][0])
        if queued_in_time:
            for events in marks:
                each = [microseconds(a, b) for a, b in pairwise(events)]
                rows.append([*each, microseconds(events[0], events[-1])])
        elif hold < LONGEST_HOLD:
            hold *= 2
        else:
            raise RuntimeError(f"{BATCH} frames were not queued within {hold / 1e4:.0f} s; expected some milliseconds")
        stream.wait()
        for events in marks:
            destroy(events)
    return np.array(rows[:runs])


def table(hw: tuple[int, int], runs: int, people: Sequence[int]) -> tuple[str, dict[int, tuple[float, float]]]:
    """The table of one size, and by number of people the p50 of everything and of the decode alone, in a graph."""
    stream = Stream()
    lines: list[str] = []
    whole: dict[int, tuple[float, float]] = {}
    for count in people:
        frame = Frame(hw, count, stream)
        names, launches = zip(*frame.steps(), strict=True)
        for launch in launches:
            launch()  # compiled before anything is captured
        stream.wait()

        def everything(frame: Frame = frame) -> None:
            frame.preprocess()
            frame.decode()

        each = times(stream, launches, runs)
        in_graph = times(stream, [stream.capture(everything)], runs)[:, 0]
        decode_alone = times(stream, [stream.capture(frame.decode)], runs)[:, 0]
        if not lines:
            columns = [*names, "sum, by events", "in a graph", "decode in a graph"]
            lines = ["| people | " + " | ".join(columns) + " |", "| ---: |" + " ---: |" * len(columns)]
        cells = [quantiles(column) for column in [*each.T, in_graph, decode_alone]]
        lines.append(f"| {count} | " + " | ".join(cells) + " |")
        whole[count] = float(np.median(in_graph)), float(np.median(decode_alone))
    return f"### {hw[0]}x{hw[1]}\n\n" + "\n".join(lines) + "\n", whole


def quantiles(column: NDArray[np.float64]) -> str:
    return " / ".join(f"{value:.1f}" for value in np.percentile(column, (50, 95, 99)))


def about() -> str:
    """The GPU and the versions, in one line."""
    from cuda.bindings import driver

    device = cuda.get_current_device()
    name = device.name.decode() if isinstance(device.name, bytes) else device.name
    version = driver.cuDriverGetVersion()[1]
    capability = ".".join(map(str, device.compute_capability))
    return (
        f"{name}, compute capability {capability}, {device.MULTIPROCESSOR_COUNT} multiprocessors, driver for "
        f"CUDA {version // 1000}.{version % 1000 // 10}, numba-cuda {numba_cuda.__version__}; maps FP32, image FP16, "
        "max_people 30"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kernels", description=__doc__)
    parser.add_argument("--runs", type=int, default=500, help="frames measured for each line (default 500)")
    parser.add_argument("--people", type=int, nargs="+", default=list(PEOPLE), help="people in the frame")
    add_gpu_option(parser)
    options = parser.parse_args(arguments)
    index = options.gpu or 0
    gpu, words = find_gpu(index)
    if gpu is None:
        print(f"this benchmark needs an NVIDIA GPU: {words}; see `nvidia-smi`", file=sys.stderr)
        return 2
    cuda.select_device(index)
    print(f"{about()}.\nMicroseconds, p50 / p95 / p99 of {options.runs} frames after a warm-up.\n")
    results = {}
    for hw in SIZES:
        text, results[hw] = table(hw, options.runs, options.people)
        print(text)
    print(BUDGETS)
    whole = results[512, 704]
    if 10 in whole:
        print(f"512x704, 10 people: {whole[10][0]:.1f} us")
    if 1 in whole and 30 in whole:
        print(f"512x704, 30 people beyond 1: {whole[30][0] - whole[1][0]:.1f} us")
    return 0


if __name__ == "__main__":
    sys.exit(main())
