"""Measure the web page: latency from capture to screen, CPU of the server, a stalled viewer, 1,000 short connections.

`python -m benchmarks.web`. Recorded people replace the network. The server runs in a separate process; the CPU time of
its thread is available only on Linux. Chromium is searched by its name and needs playwright.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).parents[1]
WH = (1280, 720)
RATE = 30.0
FRAMES = 30  # decoded in memory, played in a loop
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
ARGUMENTS = (
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-quic",
    "--disable-sync",
    "--no-first-run",
)
COLLECT = "window.latencies = []; window.higherpose.measured = (header, ms) => window.latencies.push(ms); 0"
VIEWERS = 10
CHURN, CHURN_WARM_UP = 1000, 200


@dataclass
class Usage:
    """Of the server's process. cpu_s: of its threads and of `write` in its caller. write_ms: of each `write`."""

    cpu_s: float = 0.0
    wall_s: float = 0.0
    rss_kb: int = 0
    fds: int = 0
    threads: int = 0
    write_ms: list[float] = field(default_factory=list)

    @property
    def core(self) -> float:
        return self.cpu_s / self.wall_s


def frames(clip: Path) -> list[tuple[NDArray[np.uint8], NDArray[np.float32]]]:
    """Pictures of the clip at 1280x720, each with the drawn crowd's true keypoints (P, 17, 3)."""
    import av

    truth = json.loads((ROOT / "samples" / "crowd.json").read_text(encoding="utf-8"))
    size = truth["images"][0]["width"], truth["images"][0]["height"]
    found = []
    with av.open(str(clip)) as container:
        for number, picture in enumerate(container.decode(video=0)):
            if number == FRAMES:
                break
            image = np.asarray(cv2.resize(picture.to_ndarray(format="bgr24"), WH), np.uint8)
            identity = truth["images"][number]["id"]
            people = [one["keypoints"] for one in truth["annotations"] if one["image_id"] == identity]
            points = np.asarray(people, np.float32).reshape(-1, 17, 3)
            points[..., :2] *= np.float32(WH[0] / size[0]), np.float32(WH[1] / size[1])
            found.append((image, points))
    return found


def thread_cpu_s(thread: threading.Thread) -> float:
    """CPU seconds of a thread of this process, from Linux' schedstat."""
    return int(Path(f"/proc/self/task/{thread.native_id}/schedstat").read_text().split()[0]) / 1e9


def serve(clip: Path, rate: float, answers: Connection) -> None:
    """The server's process: writes frames at this rate, answers each message with its usage, ends with the pipe."""
    from pipeline.sinks.web import Address, WebSink
    from pipeline.types import Frame, People, Result

    recorded = [
        (
            image,
            People(
                np.ascontiguousarray(p[..., :2]), (p[..., 2] > 0).astype(np.float32), np.full(len(p), 0.9, np.float32)
            ),
        )
        for image, p in frames(clip)
    ]
    usage = Usage()
    spent: list[float] = []  # CPU seconds of each write
    done = threading.Event()

    def cpu_s() -> float:
        return sum(spent) + sum(thread_cpu_s(t) for t in threading.enumerate() if t.name.startswith("web"))

    with WebSink(Address("127.0.0.1", 0), ["recorded"], live=True) as sink:

        def write() -> None:
            began = time.monotonic()
            index = 0
            while not done.wait(max(0.0, began + index / rate - time.monotonic())):
                image, people = recorded[index % len(recorded)]
                result = Result(Frame(image, index, index / rate, time.monotonic(), "recorded"), people)
                start, start_cpu = time.perf_counter(), time.thread_time()
                sink.write(result, image)
                spent.append(time.thread_time() - start_cpu)
                usage.write_ms.append((time.perf_counter() - start) * 1e3)
                index += 1

        writer = threading.Thread(target=write)
        writer.start()
        answers.send(sink.url)
        then_cpu_s, then_s = cpu_s(), time.perf_counter()
        while True:
            try:
                answers.recv()
            except EOFError:
                break
            now_cpu_s, now_s = cpu_s(), time.perf_counter()
            usage.cpu_s, usage.wall_s = now_cpu_s - then_cpu_s, now_s - then_s
            then_cpu_s, then_s = now_cpu_s, now_s
            usage.rss_kb = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024
            usage.fds, usage.threads = len(list(Path("/proc/self/fd").iterdir())), threading.active_count()
            answers.send(usage)
            usage.write_ms = []
        done.set()
        writer.join()


@contextmanager
def server(clip: Path, *, rate: float = RATE) -> Iterator[tuple[str, Connection]]:
    """The page's address, and the pipe: each message into it is answered by the usage since the last one."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=serve, args=(clip, rate, theirs))
    process.start()
    theirs.close()
    try:
        yield ours.recv(), ours
    finally:
        ours.close()
        process.join(20)
        process.kill()


def usage(pipe: Connection) -> Usage:
    pipe.send(None)
    answer = pipe.recv()
    assert isinstance(answer, Usage)
    return answer


def screen(clip: Path, seconds: float) -> tuple[list[float], Usage, float]:
    """Latencies in ms of every frame that one Chromium showed, the server's usage, frames shown a second."""
    from playwright.sync_api import sync_playwright

    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        raise SystemExit(f"no browser found; looked for {', '.join(NAMES)}")
    arguments = [*ARGUMENTS, *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    with server(clip) as (url, pipe), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=arguments)
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.goto(url)
        time.sleep(3)
        page.evaluate(COLLECT)
        usage(pipe)
        time.sleep(seconds)
        used = usage(pipe)
        latencies = [float(value) for value in page.evaluate("window.latencies")]
        browser.close()
    return latencies, used, len(latencies) / used.wall_s


class Viewer:
    """A socket that acknowledges each frame on arrival and records its age; a stalled one reads nothing."""

    def __init__(self, url: str, *, stalled: bool) -> None:
        from websockets.sync.client import connect

        self.ages_ms: list[float] = []
        self._connection = connect(url.replace("http", "ws") + "ws", max_size=None, compression=None).__enter__()
        self._thread = threading.Thread(target=self._look, daemon=True)
        if not stalled:
            self._thread.start()

    def _look(self) -> None:
        from websockets.exceptions import ConnectionClosed

        try:
            for message in self._connection:
                if isinstance(message, bytes):
                    now_ms = time.monotonic() * 1e3  # one machine, one clock
                    header = json.loads(message[4 : 4 + int.from_bytes(message[:4], "big")])
                    self.ages_ms.append(now_ms - header["captured_ms"])
                    self._connection.send(json.dumps({"type": "ack", "source": 0, "seq": header["seq"]}))
        except ConnectionClosed:
            pass

    def close(self) -> None:
        self._connection.close()
        if self._thread.is_alive():
            self._thread.join(5)


def crowd(clip: Path, seconds: float, *, stalled: int) -> tuple[list[list[float]], Usage]:
    """Ages of the frames on arrival at each of ten viewers; `stalled` of them read nothing and are left out."""
    with server(clip) as (url, pipe):
        viewers = [Viewer(url, stalled=number < stalled) for number in range(VIEWERS)]
        time.sleep(1.5)
        for viewer in viewers:
            viewer.ages_ms.clear()
        usage(pipe)
        time.sleep(seconds)
        used = usage(pipe)
        ages = [list(viewer.ages_ms) for viewer in viewers[stalled:]]
        for viewer in viewers[stalled:]:
            viewer.close()
    return ages, used


def churn(clip: Path) -> tuple[Usage, Usage, float]:
    """Usage before and after 1,000 viewers that connect, read a frame and leave, half of them without closing."""
    import socket

    from websockets.sync.client import connect

    def come_and_go(url: str, times: int) -> None:
        for number in range(times):
            with connect(
                url.replace("http", "ws") + "ws", max_size=None, compression=None, close_timeout=1
            ) as connection:
                while not isinstance(connection.recv(timeout=10), bytes):
                    pass
                if number % 2:
                    connection.socket.shutdown(socket.SHUT_RDWR)

    with server(clip) as (url, pipe):
        come_and_go(url, CHURN_WARM_UP)
        time.sleep(1)
        before = usage(pipe)
        start = time.perf_counter()
        come_and_go(url, CHURN)
        took_s = time.perf_counter() - start
        time.sleep(1)
        return before, usage(pipe), took_s


def percentiles(values: Sequence[float]) -> str:
    p50, p95, p99 = np.percentile(values, (50, 95, 99))
    return f"{p50:.1f} / {p95:.1f} / {p99:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.web", description=__doc__)
    parser.add_argument("--clip", type=Path, default=ROOT / "samples" / "crowd.mp4", help="whose pictures are sent")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each measurement (default: %(default)g)")
    parser.add_argument("--only", choices=("screen", "crowd", "churn"), help="one of the three measurements")
    arguments = parser.parse_args()
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    print(f"{WH[0]}x{WH[1]} at {RATE:g} FPS, {machine}")
    if arguments.only in (None, "screen"):
        latencies, used, shown = screen(arguments.clip, arguments.seconds)
        print(
            f"one Chromium: capture to screen p50 / p95 / p99 {percentiles(latencies)} ms, {len(latencies)} frames, "
            f"{shown:.1f} FPS shown"
        )
        print(f"server: {100 * used.core:.1f} % of a core; write {percentiles(used.write_ms)} ms")
    if arguments.only in (None, "crowd"):
        for stalled in (0, 1):
            ages, used = crowd(arguments.clip, arguments.seconds / 2, stalled=stalled)
            rates = [len(one) / used.wall_s for one in ages]
            every = np.concatenate(ages).tolist()
            print(
                f"{VIEWERS} viewers, {stalled} stalled: age on arrival {percentiles(every)} ms, "
                f"{min(rates):.1f} to {max(rates):.1f} FPS each; server {100 * used.core:.1f} % of a core; "
                f"write p99 {np.percentile(used.write_ms, 99):.2f} ms"
            )
    if arguments.only in (None, "churn"):
        before, after, took_s = churn(arguments.clip)
        print(
            f"{CHURN} viewers came and went in {took_s:.1f} s: file descriptors {before.fds} -> {after.fds}, "
            f"threads {before.threads} -> {after.threads}, "
            f"memory {before.rss_kb / 1024:.1f} -> {after.rss_kb / 1024:.1f} MB"
        )


if __name__ == "__main__":
    main()
