"""The server that runs the cases, and the table of their answers at the end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.case import Answer, Case, Command, hash_of, problems
from tests.pipeline.fakes import write_clip
from tests.pipeline.onnx_models import blob_frame, write_blob_model

ROOT = Path(__file__).resolve().parents[2]
results: dict[str, Counter[str]] = {}  # kind -> "cases", "answered", "status N"
unanswered: list[str] = []


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """model.onnx, and clip.mp4 of 12 frames: read by all cases, changed by none."""
    folder = tmp_path_factory.mktemp("faults")
    write_blob_model(folder / "model.onnx")
    write_clip(
        folder / "clip.mp4", 12, wh=(160, 128), picture=lambda i: blob_frame((160, 128), [(30 + 8 * i, 64, 0.5)])
    )
    os.environ["FAULTS_SHARED"] = str(folder)
    return folder


@pytest.fixture(scope="session")
def server() -> Iterator[subprocess.Popen]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.faults.server"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline()) == "ready"
        yield process
        assert process.stdin is not None
        process.stdin.close()


@pytest.fixture
def answered(shared, server, tmp_path) -> Callable[[Case], list[str]]:
    """Runs a case and says what is wrong with the answer."""

    def judge(case: Case) -> list[str]:
        folder = tmp_path / "case"
        folder.mkdir()
        command = case.prepare(folder)
        hashes = {path: hash_of(path) for path in [*command.inputs, shared / "clip.mp4", shared / "model.onnx"]}
        answer = run(command, folder, tmp_path, shared, server)
        found = problems(command, answer, hashes)
        counts = results.setdefault(case.kind, Counter())
        counts.update(["cases", f"status {answer.status}", *(["answered"] if not found else [])])
        if found:
            found += [f"{list(command.argv)} took {answer.seconds:.1f} s, said {answer.err[-600:]!r}"]
            unanswered.append(f"{case}: {'; '.join(found)}")
        return found

    return judge


def run(command: Command, folder: Path, tmp_path: Path, shared: Path, server: subprocess.Popen) -> Answer:
    argv = list(command.argv)
    if "--model" not in argv:
        argv += ["--model", str(shared / "model.onnx")]
    if "--engine" not in argv:
        argv += ["--engine", "onnxruntime"]
    out, err = tmp_path / "stdout", tmp_path / "stderr"
    helper = threading.Thread(target=_meanwhile, args=(command,), daemon=True)
    if command.meanwhile is not None:
        helper.start()
    if command.whole:
        return whole(command, argv, folder)
    request = {
        "argv": argv,
        "cwd": str(folder),
        "limit_s": command.limit_s,
        "stdout": str(out),
        "stderr": str(err),
        "signals": list(command.signals),
        "after": str(command.after) if command.after else None,
        "fsize": command.fsize,
        "closed": command.closed,
        "patch": command.patch,
    }
    assert server.stdin is not None
    assert server.stdout is not None
    print(json.dumps(request), file=server.stdin, flush=True)
    reply = json.loads(server.stdout.readline())
    if command.meanwhile is not None:
        helper.join(5)
    said, complained = (path.read_text(errors="replace") if path.exists() else "" for path in (out, err))
    return Answer(reply["status"], said, complained, reply["seconds"], reply["peak_mb"])


def whole(command: Command, argv: list[str], folder: Path) -> Answer:
    """From the interpreter on: what happens during its start and its end counts, too."""
    started = time.monotonic()
    reader, writer = os.pipe()
    os.close(reader)
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "run_video.py"), *argv],
        cwd=folder,
        text=True,
        stdout=writer if command.closed == "stdout" else subprocess.PIPE,
        stderr=writer if command.closed == "stderr" else subprocess.PIPE,
    )
    try:
        _wait_for_handlers(process)
        for delay, name in command.signals:
            if command.after is not None:
                _wait_for(command.after)
            time.sleep(delay)
            process.send_signal(getattr(signal, name))
        out, err = process.communicate(timeout=command.limit_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return Answer(None, "", "", time.monotonic() - started, 0.0)
    finally:
        os.close(writer)
    return Answer(process.returncode, out or "", err or "", time.monotonic() - started, 0.0)


def _wait_for_handlers(process: subprocess.Popen) -> None:
    """Until the program's first lines have run; a signal before is Python's own affair."""
    status, deadline = Path(f"/proc/{process.pid}/status"), time.monotonic() + 20
    while status.exists() and process.poll() is None and time.monotonic() < deadline:
        caught = next(line for line in status.read_text().splitlines() if line.startswith("SigCgt"))
        if int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1:
            return
        time.sleep(0.001)


def _meanwhile(command: Command) -> None:
    assert command.meanwhile is not None
    if command.after is not None:
        _wait_for(command.after)
    command.meanwhile()


def _wait_for(path: Path) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and not (path.exists() and path.stat().st_size):
        time.sleep(0.005)


def pytest_terminal_summary(terminalreporter) -> None:
    if not results:
        return
    terminalreporter.section("faults")
    row = "{:12} {:>6} {:>9}   {}"
    terminalreporter.write_line(row.format("kind", "cases", "answered", "exit statuses"))
    for kind, counts in [*results.items(), ("all", sum(results.values(), Counter()))]:
        statuses = sorted(name for name in counts if name.startswith("status "))
        told = ", ".join(f"{name.removeprefix('status ')}: {counts[name]}" for name in statuses)
        terminalreporter.write_line(row.format(kind, counts["cases"], counts["answered"], told))
    for line in unanswered:
        terminalreporter.write_line(line)
