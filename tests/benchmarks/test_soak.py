import json
import os
import threading
from dataclasses import replace

import pytest

from benchmarks.soak import BLOCKS, Lane, Process, Sample, Watch, verdicts

FILE, STREAM = "a.mp4", "rtsp://camera"


def line(source: str, index: int, time_s: float) -> bytes:
    return json.dumps({"source": source, "frame": index, "time_s": time_s, "people": []}).encode() + b"\n"


def watched(tmp_path, *lines: bytes) -> Watch:
    path = tmp_path / "lines"
    path.write_bytes(b"".join(lines))
    watch = Watch({FILE: Lane(0.125), STREAM: Lane(None)})
    watch.read(path)
    return watch


def samples(rss_mb: list[float]) -> list[Sample]:
    one = Sample(
        frames=0, seconds=1, rss_mb=0, anonymous_mb=0, heap_mb=0, descriptors=16, threads=84, quiet=True, cpu_s=1,
        lag_s=0.1, drift_s=0, breaks=3, visits=9, people=1,
    )  # fmt: skip
    return [replace(one, frames=n + 1, rss_mb=rss) for n, rss in enumerate(rss_mb)]


def failed(found: dict[str, tuple[bool, str]]) -> set[str]:
    return {name for name, (kept, _) in found.items() if not kept}


def test_frames_in_order_with_exact_times_are_right_and_gaps_are_counted(tmp_path):
    watch = watched(tmp_path, line(FILE, 0, 0), line(STREAM, 0, 0), line(FILE, 3, 0.375), line(STREAM, 1, 0.2))
    assert watch.wrong == ""
    assert (watch.frames, watch.lanes[FILE].gaps, watch.lanes[STREAM].gaps) == (4, 2, 0)
    assert failed(verdicts(samples([10.0] * BLOCKS), watch, {})) == set()


@pytest.mark.parametrize(
    "second", [line(FILE, 0, 0), line(FILE, 1, 0.126), line(STREAM, 1, 0)], ids=["twice", "drifted", "unknown clock"]
)
def test_a_frame_that_comes_twice_or_drifts_is_found(tmp_path, second):
    watch = watched(tmp_path, line(FILE, 0, 0), line(STREAM, 0, 1), second)
    assert "frames" in failed(verdicts(samples([10.0] * BLOCKS), watch, {}))


def test_memory_that_grows_after_the_first_tenth_is_found(tmp_path):
    watch = watched(tmp_path, line(FILE, 0, 0))
    warm_up_alone = [10.0 + min(n, BLOCKS // 10) for n in range(BLOCKS)]
    assert failed(verdicts(samples(warm_up_alone), watch, {})) == set()
    assert failed(verdicts(samples([10 + 3 * n / BLOCKS for n in range(BLOCKS)]), watch, {})) == {"resident memory"}


def test_a_descriptor_or_thread_that_is_left_is_found(tmp_path):
    watch = watched(tmp_path, line(FILE, 0, 0))
    kept = samples([10.0] * BLOCKS)
    kept[-1] = replace(kept[-1], descriptors=17, threads=85)
    assert failed(verdicts(kept, watch, {})) == {"file descriptors", "threads"}


def test_frames_that_the_command_counted_otherwise_are_found(tmp_path):
    watch = watched(tmp_path, line(FILE, 0, 0), line(FILE, 2, 0.25), line(STREAM, 0, 0))
    own = [{"name": FILE, "frames": 2, "dropped": 1}, {"name": STREAM, "frames": 1, "dropped": 0}]
    assert failed(verdicts(samples([10.0] * BLOCKS), watch, {"sources": own})) == set()
    own[0]["dropped"] = 0
    assert failed(verdicts(samples([10.0] * BLOCKS), watch, {"sources": own})) == {"counts"}


def test_a_process_is_read_from_outside():
    process = Process(os.getpid())
    resident, anonymous, heap = process.memory()
    assert resident > anonymous > heap >= 0
    assert process.threads() >= threading.active_count()
    assert process.descriptors() >= 3
    assert process.cpu_s() > 0
