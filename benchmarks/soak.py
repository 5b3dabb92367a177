"""Run for hours in one process: python -m benchmarks.soak [--frames 100000] [--size 64] [--out DIR]

The sample clip runs in loops through the real engine. Every block of frames writes a new JSON file and a short video;
viewers in a separate process connect to the page and disconnect. Between blocks, with the outputs closed and no viewer,
resident memory, file descriptors and threads of the process are recorded, and frame numbers are compared with
timestamps. `soak.jsonl` and `soak.png` are written to --out.

Exit status 1 if a limit is missed: memory constant after the first tenth, descriptors and threads constant, no frame
lost or duplicated, no drift.
"""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import random
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from multiprocessing.synchronize import Event
from pathlib import Path

import av

from core.command_line import CommandParser, count, input_side
from pipeline import PosePipeline, open_source
from pipeline.sinks import JsonSink, VideoSink
from pipeline.sinks.outputs import Outputs
from pipeline.sinks.web import Address, WebSink
from pipeline.stats import Meter, Recorder
from pipeline.types import Result

CLIP = Path(__file__).resolve().parents[1] / "samples" / "crowd.mp4"
BLOCKS = 200
VIDEO_FRAMES = 50  # per block that are also written to a video: encoding all would be most of the work
VIEWERS = 3
MAX_GROWTH_MB = 2.0
MAX_DRIFT_S = 1e-3  # of a timestamp from the frame's number times the frame interval


@dataclass(frozen=True)
class Sample:
    """Resources of the process after `frames`, between two blocks."""

    frames: int
    seconds: float
    rss_mb: float
    descriptors: int
    threads: int
    viewers_seen: int
    drift_s: float
    people: int


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def count_descriptors() -> int:
    return len(os.listdir("/proc/self/fd")) - 1  # noqa: PTH208  (the listing's own)


def count_threads() -> int:
    """All threads of the process, including those of libraries."""
    return len(os.listdir("/proc/self/task"))  # noqa: PTH208


def come_and_go(port: int, pause: Event, seed: int) -> None:
    """Viewers, in a separate process: each watches for a while, some acknowledge no frame, some leave mid-frame."""
    from websockets.exceptions import WebSocketException
    from websockets.sync.client import connect

    def look(number: int) -> None:
        rng = random.Random(seed + number)
        while True:
            while pause.is_set():
                time.sleep(0.05)
            slow, wanted = rng.random() < 0.2, rng.randrange(1, 200)
            with (
                suppress(OSError, TimeoutError, WebSocketException),
                connect(f"ws://127.0.0.1:{port}/ws", max_size=None, open_timeout=5, close_timeout=0.2) as socket,
            ):
                for _ in range(wanted):
                    message = socket.recv(timeout=1)
                    if isinstance(message, bytes) and not slow:
                        header = json.loads(message[4 : 4 + int.from_bytes(message[:4], "big")])
                        socket.send(json.dumps({"type": "ack", "source": header["source"], "seq": header["seq"]}))
                    if pause.is_set():
                        break
            time.sleep(rng.random() * 0.3)

    threads = [threading.Thread(target=look, args=(number,), daemon=True) for number in range(VIEWERS)]
    for thread in threads:
        thread.start()
    threads[0].join()


def soak(frames: int, size: int, folder: Path, clip: Path) -> Iterator[Sample]:
    """A Sample after each block. Raises RuntimeError if a frame is missing, duplicated or has a wrong timestamp."""
    block = max(1, frames // BLOCKS)
    with av.open(str(clip)) as container:
        interval_s = float(1 / (container.streams.video[0].average_rate or 25))
    recorder, meter = Recorder(), Meter()
    pause = multiprocessing.get_context("spawn").Event()
    source = open_source(clip, loop=True)
    with WebSink(Address("127.0.0.1", 0), source.parts) as web, PosePipeline("tiny", size=size) as pose:
        port = int(web.url.split(":")[2].split("/")[0])
        viewers = multiprocessing.get_context("spawn").Process(target=come_and_go, args=(port, pause, 0), daemon=True)
        viewers.start()
        started, seen, drift_s = time.perf_counter(), 0, 0.0
        meter.start()
        results = pose.run(source, recorder=recorder)  # no limit: its threads still run at the last sample
        try:
            for done in range(0, frames, block):
                lines, video = Outputs([JsonSink(folder / "soak.block.jsonl")], recorder), None
                for place in range(min(block, frames - done)):
                    result = next(results)
                    drift_s = check(result, done + place, interval_s)
                    lines.write(result)
                    if place == 0:
                        video = Outputs([VideoSink(folder / "soak.block.mp4")], recorder)
                    if place < VIDEO_FRAMES and video is not None:
                        video.write(result)
                    web.write(result, result.frame.image)
                    seen = max(seen, web.viewers)
                    meter.count(len(result.people), result.timings["latency"])
                lines.close()
                if video is not None:
                    video.close()
                pause.set()
                deadline = time.monotonic() + 10
                while web.viewers and time.monotonic() < deadline:
                    time.sleep(0.02)
                time.sleep(0.05)  # the sockets' last packets
                gc.collect()
                yield Sample(
                    frames=done + min(block, frames - done), seconds=round(time.perf_counter() - started, 2),
                    rss_mb=round(resident_mb(), 3), descriptors=count_descriptors(), threads=count_threads(),
                    viewers_seen=seen, drift_s=drift_s, people=meter.people,
                )  # fmt: skip
                seen = 0
                pause.clear()
        finally:
            viewers.terminate()
            viewers.join()
            results.close()
        if meter.frames != frames or recorder.dropped:
            raise RuntimeError(f"{meter.frames} of {frames} frames came, {recorder.dropped} were dropped")


def check(result: Result, expected: int, interval_s: float) -> float:
    """Seconds by which the frame's timestamp is off. Raises RuntimeError for another frame or too much drift."""
    drift_s = abs(result.frame.time_s - expected * interval_s)
    if result.frame.index != expected or drift_s > MAX_DRIFT_S:
        raise RuntimeError(
            f"frame {result.frame.index} at {result.frame.time_s:.4f} s came; "
            f"expected {expected} at {expected * interval_s:.4f} s"
        )
    return drift_s


def verdicts(samples: Sequence[Sample]) -> dict[str, tuple[bool, str]]:
    """For each limit: whether it is met, and a text with the measured values."""
    tenth = max(1, len(samples) // 10)
    early = statistics.median(s.rss_mb for s in samples[tenth : 2 * tenth] or samples)
    late = statistics.median(s.rss_mb for s in samples[-tenth:])
    kept = samples[tenth:] or samples
    descriptors, threads = ({getattr(s, name) for s in kept} for name in ("descriptors", "threads"))
    return {
        "resident memory": (
            late - early <= MAX_GROWTH_MB,
            f"{early:.1f} MB after the first tenth, {late:.1f} MB in the last; limit + {MAX_GROWTH_MB:g} MB",
        ),
        "file descriptors": (len(descriptors) == 1, f"{sorted(descriptors)} between blocks"),
        "threads": (len(threads) == 1, f"{sorted(threads)} between blocks"),
        "timestamps": (True, f"at most {max(s.drift_s for s in samples):.1e} s off after {samples[-1].frames} frames"),
        "viewers": (any(s.viewers_seen for s in samples), f"up to {max(s.viewers_seen for s in samples)} at once"),
    }


def plot(samples: Sequence[Sample], path: Path, title: str) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(3, 1, sharex=True, figsize=(10, 6.5))
    frames = [s.frames for s in samples]
    for axis, name, label in zip(
        axes, ("rss_mb", "descriptors", "threads"), ("resident memory, MB", "file descriptors", "threads"), strict=True
    ):
        values = [getattr(s, name) for s in samples]
        axis.plot(frames, values, lw=1.5)
        axis.set_ylim(0, max(values) * 1.15)
        axis.set_ylabel(label)
        axis.grid(alpha=0.3)
        axis.axvspan(0, frames[-1] / 10, color="0.9")
    axes[0].set_title(title)
    axes[-1].set_xlabel("frames")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main(argv: Sequence[str] | None = None) -> int:
    parser = CommandParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--frames", type=count, default=100_000, metavar="N", help="(100000)")
    parser.add_argument("--size", type=input_side, default=64, metavar="N", help="short side of the input (64)")
    parser.add_argument("--clip", type=Path, default=CLIP, metavar="FILE", help="constant frame rate (the sample)")
    parser.add_argument("--out", type=Path, default=Path("out"), metavar="DIR", help="for soak.jsonl, soak.png (out)")
    options = parser.parse_args(argv)
    options.out.mkdir(parents=True, exist_ok=True)
    samples: list[Sample] = []
    with tempfile.TemporaryDirectory() as folder, (options.out / "soak.jsonl").open("w") as log:
        for sample in soak(options.frames, options.size, Path(folder), options.clip):
            samples.append(sample)
            log.write(json.dumps(asdict(sample)) + "\n")
            log.flush()
    last = samples[-1]
    plot(samples, options.out / "soak.png", f"{last.frames} frames at --size {options.size}, {last.seconds:.0f} s")
    found = verdicts(samples)
    for name, (kept, words) in found.items():
        print(f"{name:18} {'ok' if kept else 'NO'}  {words}")
    return 0 if all(kept for kept, _ in found.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
