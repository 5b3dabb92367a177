"""A signal finishes the outputs: Ctrl-C, SIGTERM (services, containers), SIGHUP (a closed terminal)."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import run_video
from commands.interrupts import Interrupts
from core.signals import Stopped
from tests.pipeline.fakes import write_clip
from tests.pipeline.onnx_models import blob_frame
from tests.run_video.outcomes import WH, frames_of, json_lines

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")

WORDS = {"SIGINT": "interrupted", "SIGTERM": "interrupted by SIGTERM", "SIGHUP": "interrupted by SIGHUP"}
STATUSES = {"SIGINT": 130, "SIGTERM": 143, "SIGHUP": 129}


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory) -> Path:
    """A clip of 24 seconds, played at its own speed."""
    path = tmp_path_factory.mktemp("long") / "long.mp4"
    return write_clip(path, 600, wh=WH, picture=lambda i: blob_frame(WH, [(80, 64, 0.5)]))


def wait_for_lines(path: Path, wanted: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and (not path.exists() or path.read_text().count("\n") < wanted):
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [("SIGINT", 1), ("SIGINT", 12), ("SIGTERM", 1), ("SIGTERM", 12), ("SIGHUP", 1), ("SIGHUP", 12)],
)
def test_a_signal_finishes_the_outputs(model, long_clip, tmp_path, name, wanted):
    video, lines = tmp_path / "out.mp4", tmp_path / "a.jsonl"
    command = [sys.executable, "run_video.py", str(long_clip), "--model", str(model), "--realtime"]
    process = subprocess.Popen(
        [*command, "--save", str(video), "--json", str(lines)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for_lines(lines, wanted)
    process.send_signal(getattr(signal, name))
    _, err = process.communicate(timeout=30)
    count = len(json_lines(lines))
    assert process.returncode == STATUSES[name]
    assert err.splitlines() == [f"run_video.py: {WORDS[name]} after {count} frames; the outputs so far are complete"]
    assert count >= wanted
    assert len(frames_of(video)) == count


def test_a_signal_while_the_outputs_are_opened(model, long_clip, tmp_path, monkeypatch, capsys):
    """No frame was written, so there is no video: an empty one plays nowhere."""
    from pipeline.sinks.base import open_file

    def interrupted(path: Path):
        file = open_file(path)
        os.kill(os.getpid(), signal.SIGTERM)
        return file

    monkeypatch.setattr("pipeline.sinks.video.open_file", interrupted)
    video, lines = tmp_path / "out.mp4", tmp_path / "a.jsonl"
    arguments = [str(long_clip), "--model", str(model), "--save", str(video), "--json", str(lines)]
    assert run_video.main(arguments) == STATUSES["SIGTERM"]
    assert capsys.readouterr().err.splitlines() == [
        "run_video.py: interrupted by SIGTERM after 0 frames; the outputs so far are complete"
    ]
    assert not video.exists()
    assert lines.read_text() == ""


def test_a_pipe_that_nobody_reads(model, long_clip, tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    command = [sys.executable, "run_video.py", str(long_clip), "--model", str(model), "--json", str(pipe)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()  # the model is open: it waits for a reader now
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 143
    assert err.splitlines() == ["run_video.py: interrupted by SIGTERM after 0 frames; the outputs so far are complete"]


def test_a_terminal_that_is_closed(model, long_clip, tmp_path):
    """Its programs get SIGHUP, and writing to the terminal fails from then on."""
    import pty

    video, lines = tmp_path / "out.mp4", tmp_path / "a.jsonl"
    command = [sys.executable, "run_video.py", str(long_clip), "--model", str(model), "--realtime"]
    command += ["--save", str(video), "--json", str(lines)]
    child, terminal = pty.fork()
    if child == 0:
        os.execv(sys.executable, command)
    wait_for_lines(lines, 12)
    assert os.read(terminal, 100_000)  # the progress bar
    os.close(terminal)
    deadline = time.monotonic() + 30
    ended, status = os.waitpid(child, os.WNOHANG)
    while not ended and time.monotonic() < deadline:
        time.sleep(0.05)
        ended, status = os.waitpid(child, os.WNOHANG)
    if not ended:
        os.kill(child, signal.SIGKILL)
    assert ended
    assert os.waitstatus_to_exitcode(status) == 129
    assert len(frames_of(video)) == len(json_lines(lines)) >= 12


def test_a_signal_during_the_imports_is_one_line():
    command = "import core.signals as c, os, signal; c.end_at_once('run_video.py'); os.kill(os.getpid(), {})"
    for name, status in STATUSES.items():
        done = subprocess.run(
            [sys.executable, "-c", command.format(f"signal.{name}")], capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (status, f"run_video.py: {WORDS[name]}\n")


def test_the_imports_are_guarded_first():
    for path in ("run_video.py", "evaluate.py", "engine/__main__.py", "export/__main__.py", "train/__main__.py"):
        code = Path(path).read_text()
        assert re.match(
            r'(""".*?"""\s+)?from __future__ import annotations\s+'
            r'from core.signals import [a-z_, ]*\s+if __name__ == "__main__":\s+end_at_once',
            code,
            re.DOTALL,
        ), path


def test_a_signal_within_compiled_code_is_that_signal():
    """As CPython reports what a signal raised within Numba's dispatcher."""
    with pytest.raises(Stopped) as stopped, Interrupts():
        inner = SystemError("_numba_unpickle returned a result with an exception set")
        inner.__cause__ = Stopped(signal.SIGHUP)
        raise SystemError("CPUDispatcher returned a result with an exception set") from inner
    assert stopped.value.status == 129


@pytest.mark.parametrize("name", STATUSES)
def test_a_held_block_is_not_interrupted_and_the_second_signal_changes_nothing(name):
    done = []
    with pytest.raises(Stopped) as stopped, Interrupts() as interrupts:
        with interrupts.held():
            os.kill(os.getpid(), getattr(signal, name))
            os.kill(os.getpid(), signal.SIGTERM)
            done.append("held")
        done.append("not reached")
    assert done == ["held"]
    assert stopped.value.status == STATUSES[name]


def test_a_signal_that_a_callback_swallows_comes_later_and_is_not_reported(monkeypatch):
    reported: list[sys.UnraisableHookArgs] = []
    monkeypatch.setattr(sys, "unraisablehook", reported.append)
    with Interrupts() as interrupts:
        pass_through_c(lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(Stopped), interrupts.held():
            pass
        pass_through_c(lambda: 1 / 0)
    assert [type(one.exc_value) for one in reported] == [ZeroDivisionError]
    assert sys.unraisablehook == reported.append


def pass_through_c(work) -> None:
    ctypes.CFUNCTYPE(None)(work)()


def test_after_the_first_signal_the_end_is_undisturbed():
    with Interrupts() as interrupts:
        with pytest.raises(Stopped):
            os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGHUP)  # no exception: outputs are being finished
        with interrupts.held(forget=True):
            pass
        with pytest.raises(Stopped), interrupts.held():  # had the first one been swallowed, it comes again
            pass


def test_a_run_under_nohup_outlives_its_terminal():
    command = (
        "import os, signal; from commands.interrupts import Interrupts\n"
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "with Interrupts():\n    os.kill(os.getpid(), signal.SIGHUP); print('on')"
    )
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "on\n"), done.stderr
