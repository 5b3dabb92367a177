"""Run for hours in one process: python -m benchmarks.soak [--frames 100000] [--size 64] [--out DIR]

The command itself runs in a process of its own, `run_video.py A B ... --realtime --loop --reconnect --web --json
--batch 8`: five files in loops and three RTSP streams whose server breaks off, side by side, while viewers of the page
come and go. Its JSON lines are read from a pipe and checked: no frame twice or out of order, timestamps of files exact,
every gap counted as dropped, and each source's clock beside the wall clock. At every 200th of the frames its resident
memory, file descriptors and threads are read from outside, with every stream connected and no viewer. `soak.jsonl` and
`soak.png` are written to --out while it runs; stopped by Ctrl-C or SIGTERM, it ends with what it has.

Exit status 1 if a limit is missed: memory flat, and no more descriptors or threads, after the first tenth; frames and
timestamps right. Linux only.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks.soak_sources import BreakingServer, transport_stream, write_slow_copy
from benchmarks.soak_viewers import Viewers
from core.command_line import CommandParser, count, input_side, number

ROOT = Path(__file__).resolve().parents[1]
CLIP = ROOT / "samples" / "crowd.mp4"
BLOCKS = 200
FILES, STREAMS = 5, 3
VIEWERS = 3
WH = (320, 240)
MAX_GROWTH_MB = 2.0
MAX_DRIFT_S = 1e-5  # of a file's timestamp from the frame's number times the interval; the JSON has 1e-6
MAX_LAG_S = 1.0  # between a source's clock and the wall clock, median of the last tenth against the first
QUIET_S = 25.0  # how long a sample waits for all streams to be connected and all viewers to be gone


@dataclass(frozen=True)
class Sample:
    """The process after `frames`. cpu_s: user and system time since its start. lag_s: worst source's clock."""

    frames: int
    seconds: float
    rss_mb: float
    anonymous_mb: float
    heap_mb: float
    descriptors: int
    threads: int
    quiet: bool
    cpu_s: float
    lag_s: float
    drift_s: float
    breaks: int
    visits: int
    people: int


@dataclass
class Lane:
    """What was seen of a source. interval_s: of a file, None of a stream."""

    interval_s: float | None
    frames: int = 0
    last: int = -1
    last_s: float = -1.0
    gaps: int = 0
    first_at: float = 0.0
    seen_at: float = 0.0
    lag_s: float = 0.0


@dataclass
class Watch:
    """Reads the JSON lines in a thread of its own. wrong: the first thing that was not as it must be."""

    lanes: dict[str, Lane]
    frames: int = 0
    people: int = 0
    drift_s: float = 0.0
    wrong: str = ""
    changed: threading.Condition = field(default_factory=threading.Condition)

    def read(self, path: Path) -> None:
        with path.open("rb") as lines:
            for line in lines:
                found = json.loads(line)
                with self.changed:
                    self._take(found["source"], found["frame"], found["time_s"], time.monotonic())
                    self.people += len(found["people"])
                    self.frames += 1
                    self.changed.notify_all()

    def _take(self, source: str, index: int, time_s: float, now: float) -> None:
        lane = self.lanes[source]
        if index <= lane.last or time_s < lane.last_s:
            self.wrong = self.wrong or f"frame {index} at {time_s} s of {source} after {lane.last} at {lane.last_s} s"
        if lane.interval_s is not None:
            drift_s = abs(time_s - index * lane.interval_s)
            self.drift_s = max(self.drift_s, drift_s)
            if drift_s > MAX_DRIFT_S:
                self.wrong = self.wrong or f"frame {index} of {source} at {time_s} s, {drift_s:.4f} s off"
        if lane.frames == 0:
            lane.first_at = now - time_s
        lane.lag_s = now - time_s - lane.first_at
        lane.gaps += max(0, index - lane.last - 1)
        lane.last, lane.last_s, lane.seen_at = index, time_s, now
        lane.frames += 1

    def all_live(self) -> bool:
        now = time.monotonic()
        return all(now - lane.seen_at < 1 for lane in self.lanes.values())


@dataclass(frozen=True)
class Process:
    """Another process, by /proc."""

    pid: int

    def memory(self) -> tuple[float, float, float]:
        """Resident, of it anonymous, and of that in the heap, MB."""
        rollup = dict(
            line.split(":", 1) for line in self._text("smaps_rollup").splitlines()[1:]
        )  # the first line is the range
        heap, inside = 0, False
        for line in self._text("smaps").splitlines():
            if "-" in line.split(" ", 1)[0]:
                inside = line.endswith("[heap]")
            elif inside and line.startswith("Rss:"):
                heap += int(line.split()[1])
        kib = [int(rollup[name].split()[0]) for name in ("Rss", "Anonymous")]
        return kib[0] / 1024, kib[1] / 1024, heap / 1024

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))  # noqa: PTH208  (names only)

    def threads(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/task"))  # noqa: PTH208

    def cpu_s(self) -> float:
        fields = self._text("stat").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def _text(self, name: str) -> str:
        return Path(f"/proc/{self.pid}/{name}").read_text()


def connections(port: int) -> int:
    """Established connections to a local port."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(row[1].endswith(f":{port:04X}") and row[3] in ("01", "08") for row in rows)


class Soak:
    """The command, its sources and its viewers. `samples` runs them."""

    def __init__(self, *, frames: int, size: int, rate: int, folder: Path, extra: Sequence[str] = ()) -> None:
        self._frames, self._size, self._rate, self._folder, self._extra = frames, size, rate, folder, extra
        self.stats: dict[str, object] = {}
        self.status: int | None = None

    def samples(self) -> Iterator[Sample]:
        """After each block of frames. Sets `stats` and `status`, of the command's end, and `watch`."""
        files = [self._folder / f"file-{n}.mp4" for n in range(FILES)]
        write_slow_copy(CLIP, files[0], rate=self._rate, wh=WH)
        for other in files[1:]:
            other.write_bytes(files[0].read_bytes())
        self.server = BreakingServer(transport_stream(files[0]), rate=self._rate)
        streams = [f"rtsp://127.0.0.1:{self.server.port}/{n}" for n in range(STREAMS)]
        lanes = {str(path): Lane(1 / self._rate) for path in files} | {url: Lane(None) for url in streams}
        self.watch = Watch(lanes)
        lines = self._folder / "lines.pipe"
        os.mkfifo(lines)
        with ExitStack() as stack:
            stack.enter_context(self.server.running())
            command = [
                *(sys.executable, str(ROOT / "run_video.py"), *lanes, "--realtime", "--loop", "--reconnect"),
                *("--web", "127.0.0.1:0", "--batch", str(len(lanes)), "--size", str(self._size), "--json", str(lines)),
                *("--limit", str(self._frames), "--stats", "json", *self._extra),
            ]
            child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
            stack.callback(self._end, child)
            reader = threading.Thread(target=self.watch.read, args=(lines,), daemon=True)
            reader.start()
            assert child.stdout is not None
            url = child.stdout.readline()
            port = int(url.split(":")[2].split("/")[0])
            viewers = Viewers(port, VIEWERS)
            yield from self._watched(child, port, viewers)
            text = child.stdout.read()
            self.status = child.wait(60)
            reader.join(10)
            self.stats = json.loads(text.splitlines()[-1])

    def _watched(self, child: subprocess.Popen[str], port: int, viewers: Viewers) -> Iterator[Sample]:
        process, started = Process(child.pid), time.monotonic()
        block = max(1, self._frames // BLOCKS)
        for wanted in range(block, self._frames, block):
            with self.watch.changed:
                while self.watch.frames < wanted and child.poll() is None:
                    self.watch.changed.wait(1)
            if child.poll() is not None or self.watch.frames >= self._frames:
                return
            viewers.away.set()
            self.server.steady.set()
            deadline = time.monotonic() + QUIET_S
            while (quiet := not connections(port) and self.watch.all_live()) is False and time.monotonic() < deadline:
                time.sleep(0.1)
            time.sleep(0.3)  # the last sockets' ends
            if self.watch.frames >= self._frames:
                return  # it is ending
            try:
                # a file that is just opened again has no decoder for a moment: the most frequent of a few readings
                readings = []
                for _ in range(7):
                    readings.append((process.descriptors(), process.threads()))
                    time.sleep(0.05)
                memory, cpu_s = process.memory(), process.cpu_s()
            except (OSError, IndexError, KeyError):
                return  # it has ended
            descriptors, threads = statistics.mode(readings)
            yield Sample(
                frames=self.watch.frames, seconds=round(time.monotonic() - started, 2),
                rss_mb=round(memory[0], 3), anonymous_mb=round(memory[1], 3), heap_mb=round(memory[2], 3),
                descriptors=descriptors, threads=threads, quiet=quiet, cpu_s=cpu_s,
                lag_s=round(max(abs(lane.lag_s) for lane in self.watch.lanes.values()), 4),
                drift_s=self.watch.drift_s, breaks=self.server.breaks, visits=viewers.visits, people=self.watch.people,
            )  # fmt: skip
            self.server.steady.clear()
            viewers.away.clear()

    def _end(self, child: subprocess.Popen[str]) -> None:
        if child.poll() is None:
            child.send_signal(signal.SIGTERM)
            try:
                child.wait(20)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def verdicts(samples: Sequence[Sample], watch: Watch, stats: dict[str, object]) -> dict[str, tuple[bool, str]]:
    """For each limit: whether it is met, and a text with the measured values. stats: of the command; {} if cut."""
    tenth = max(1, len(samples) // 10)
    kept = [s for s in samples[tenth:] if s.quiet] or list(samples)
    early = statistics.median(s.rss_mb for s in samples[tenth : 2 * tenth] or samples)
    late = statistics.median(s.rss_mb for s in samples[-tenth:])
    high = max(s.rss_mb for s in kept)
    # one that is left behind stays; fewer are those of a file that is being opened again
    descriptors, threads = (
        [getattr(s, name) for s in [*samples[:tenth], *kept]] for name in ("descriptors", "threads")
    )
    lag_s = abs(
        statistics.median(s.lag_s for s in samples[-tenth:]) - statistics.median(s.lag_s for s in samples[:tenth])
    )
    gaps = sum(lane.gaps for lane in watch.lanes.values())
    found = {
        "resident memory": (
            late - early <= MAX_GROWTH_MB,
            f"{early:.1f} MB after the first tenth, {late:.1f} MB in the last, at most {high:.1f} MB; "
            f"limit + {MAX_GROWTH_MB:g} MB",
        ),
        "file descriptors": (max(descriptors[tenth:]) <= max(descriptors[:tenth]), f"{counted(descriptors[tenth:])}"),
        "threads": (max(threads[tenth:]) <= max(threads[:tenth]), f"{counted(threads[tenth:])}"),
        "frames": (not watch.wrong, watch.wrong or f"{watch.frames}, each once and in order; {gaps} dropped between"),
        "timestamps": (watch.drift_s <= MAX_DRIFT_S, f"of files at most {watch.drift_s:.1e} s off"),
        "clocks": (lag_s <= MAX_LAG_S, f"sources' against the wall: {lag_s:.2f} s from the first tenth to the last"),
        "viewers": (samples[-1].visits > 0, f"{samples[-1].visits} visits"),
        "reconnects": (samples[-1].breaks > 0, f"{samples[-1].breaks} times a stream broke off"),
    }
    sources = stats.get("sources")
    if isinstance(sources, list):
        taken = {one["name"]: one["frames"] for one in sources}
        dropped = {one["name"]: one["dropped"] for one in sources}
        # what is on its way when the limit is reached is taken, and shown nowhere
        off = [n for n, lane in watch.lanes.items() if not 0 <= taken[n] - lane.frames <= 8]
        off += [n for n, lane in watch.lanes.items() if not 0 <= dropped[n] - lane.gaps <= 8]
        found["counts"] = (not off, f"the command's and those seen agree{' not, for ' + ', '.join(off) if off else ''}")
    return found


def counted(values: Sequence[int]) -> str:
    return ", ".join(f"{value} in {times} samples" for value, times in Counter(values).most_common())


def plot(samples: Sequence[Sample], path: Path, title: str) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    rows = (("rss_mb", "resident, MB"), ("descriptors", "descriptors"), ("threads", "threads"), ("lag_s", "lag, s"))
    figure, axes = plt.subplots(len(rows), 1, sharex=True, figsize=(10, 8))
    frames = [s.frames for s in samples]
    for axis, (name, label) in zip(axes, rows, strict=True):
        values = [getattr(s, name) for s in samples]
        axis.plot(frames, values, lw=1.5)
        axis.set_ylim(0, max(max(values) * 1.15, 0.1))
        axis.set_ylabel(label)
        axis.grid(alpha=0.3)
        axis.axvspan(0, frames[-1] / 10, color="0.9")
    axes[0].set_title(title)
    axes[-1].set_xlabel("frames")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def stop(signum: int, frame: object) -> None:
    raise KeyboardInterrupt


def main(argv: Sequence[str] | None = None) -> int:
    parser = CommandParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--frames", type=count, default=100_000, metavar="N", help="(100000)")
    parser.add_argument("--size", type=input_side, default=64, metavar="N", help="short side of the input (64)")
    parser.add_argument("--rate", type=number(int, 1, 60, "1 to 60"), default=8, help="FPS of each source (8)")
    parser.add_argument("--engine", default="auto", metavar="NAME", help="as of run_video.py (auto)")
    parser.add_argument("--out", type=Path, default=Path("out"), metavar="DIR", help="for soak.jsonl, soak.png (out)")
    options = parser.parse_args(argv)
    options.out.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, stop)
    samples: list[Sample] = []
    with tempfile.TemporaryDirectory() as folder, (options.out / "soak.jsonl").open("w") as log:
        soak = Soak(
            frames=options.frames, size=options.size, rate=options.rate, folder=Path(folder),
            extra=["--engine", options.engine],
        )  # fmt: skip
        try:
            for sample in soak.samples():
                samples.append(sample)
                log.write(json.dumps(asdict(sample)) + "\n")
                log.flush()
        except KeyboardInterrupt:
            print("stopped; what follows is of the frames until then")
    if not samples:
        print(f"the command ended with status {soak.status} before the first sample")
        return 1
    last = samples[-1]
    title = f"{last.frames} frames of {FILES + STREAMS} sources at --size {options.size}, {last.seconds / 60:.0f} min"
    plot(samples, options.out / "soak.png", title)
    found = verdicts(samples, soak.watch, soak.stats)
    for name, (kept, words) in found.items():
        print(f"{name:18} {'ok' if kept else 'NO'}  {words}")
    print(f"{soak.watch.frames} frames, {last.seconds:.0f} s, {1e3 * last.cpu_s / last.frames:.1f} ms CPU a frame")
    return 0 if all(kept for kept, _ in found.values()) and soak.watch.frames == options.frames else 1


if __name__ == "__main__":
    sys.exit(main())
