"""The page of the command: its address is printed at once, people are sent, and it ends with the command."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import pytest
from websockets.sync.client import connect

from pipeline.sinks.web.messages import pack_frame
from tests.pipeline.onnx_models import blob_frame
from tests.pipeline.sinks.web.serving import Received
from tests.run_video.outcomes import WH, check_refused

ROOT = Path(__file__).parents[2]


@contextmanager
def command(*arguments: object) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command in its own process, and the address that it prints; ended by Ctrl-C."""
    words = [sys.executable, "run_video.py", *map(str, arguments), "--web", "0"]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        watch = threading.Timer(150, process.kill)
        watch.start()
        try:
            yield process, process.stdout.readline().strip()
        finally:
            watch.cancel()
            process.kill()


def interrupted(process: subprocess.Popen[str]) -> str:
    """Send Ctrl-C; returns the text of stderr."""
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    return errors


def test_the_address_comes_at_once_and_people_are_on_its_page(clip, model):
    with command(clip, "--model", model, "--loop", "--realtime") as (process, url):
        assert url.startswith("http://127.0.0.1:") and url.endswith("/")
        with urllib.request.urlopen(url, timeout=10) as answer:
            assert answer.status == 200 and "<title>HigherPose</title>" in answer.read().decode()
        with connect(url.replace("http", "ws") + "ws", max_size=None) as connection:
            seen = Received(connection)
            indices: list[int] = []
            while not indices or indices[-1] < 40:  # the clip has fewer frames: it is played again
                frame = seen.next("frame", within_s=100)
                indices.append(frame["frame"])
                seen.acknowledge(frame)
            assert len(frame["people"]) == 1 and frame["name"].endswith("walk.mp4")
            errors = interrupted(process)
            assert seen.next("end")["text"] == "The program was stopped."
    (line,) = errors.splitlines()
    assert line.startswith("run_video.py: interrupted after")


def test_a_visitors_camera_comes_back_with_people(model):
    with (
        command("browser", "--model", model) as (process, url),
        connect(url.replace("http", "ws") + "ws", max_size=None) as connection,
    ):
        seen = Received(connection)
        assert seen.next("hello")["sources"][0]["state"] == "waiting"
        connection.send('{"type":"camera"}')
        assert seen.next("camera")["granted"]
        jpeg = cv2.imencode(".jpg", blob_frame(WH, [(60, 60, 0.5)]))[1].tobytes()
        connection.send(pack_frame({"captured_ms": time.monotonic() * 1e3}, jpeg))
        frame = seen.next("frame", within_s=100)
        assert len(frame["people"]) == 1 and frame["name"] == "browser"
        assert "interrupted after 1 frames" in interrupted(process)


def test_a_visitor_who_never_comes_does_not_hold_the_program(model):
    with command("browser", "--model", model) as (process, url):
        urllib.request.urlopen(url, timeout=10).close()
        assert "interrupted after 0 frames" in interrupted(process)


def test_when_the_sources_end_the_command_ends_and_the_page_says_so(run_command, clip, capfd):
    ends: list[str] = []

    def look() -> None:
        with socket.socket() as free:  # the port that the command is told
            free.bind(("127.0.0.1", 0))
            port.append(free.getsockname()[1])
        ready.set()
        for _ in range(400):
            try:
                with connect(f"ws://127.0.0.1:{port[0]}/ws", max_size=None) as connection:
                    ends.append(Received(connection).next("end", within_s=100)["text"])
                return
            except OSError:
                time.sleep(0.02)

    port: list[int] = []
    ready = threading.Event()
    viewer = threading.Thread(target=look)
    viewer.start()
    ready.wait()
    status, lines, errors = run_command(clip, "--web", port[0], "--realtime", "--stats", "json")
    viewer.join()
    assert (status, errors, lines[0]) == (0, [], f"http://127.0.0.1:{port[0]}/")
    assert json.loads(lines[-1])["frames"] > 0
    assert [end.endswith("walk.mp4 has ended.") for end in ends] == [True]


def test_a_taken_port_ends_with_one_line(run_command, clip):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        check_refused(
            run_command(clip, "--web", port), rf"--web 127.0.0.1:{port} cannot be served: port {port} is in use"
        )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--web", "no-such-host.invalid:8000"], "host no-such-host.invalid is not known"),
        (["--web", "192.0.2.1:8000"], "192.0.2.1 is not an address of this machine"),
        (["--web", "x"], r"--web: got x, expected \[HOST:\]PORT, such as 8000"),
        (["--web", "99999"], r"--web: got 99999, expected \[HOST:\]PORT"),
        (["--tls", "cert.pem", "key.pem"], "--tls is for the page; add --web 8000"),
        (["--web", "0", "--tls", "no.pem", "no.key"], "--tls no.pem does not exist"),
        (["browser"], "is a file among live sources; add --realtime"),
    ],
)
def test_what_cannot_be_served_ends_with_one_line(run_command, clip, arguments, words):
    check_refused(run_command(clip, *arguments), words)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["browser"], "the source browser is the camera of the page.s visitor; add --web 8000"),
        (
            ["rtsp://me:secret@127.0.0.1:1/a", "--loop", "--web", "0"],
            "--loop repeats files, and rtsp://127.0.0.1:1/a is live",
        ),
        (["rtsp://me:secret@127.0.0.1:1/a", "--web", "0"], "rtsp://127.0.0.1:1/a cannot be opened"),
    ],
)
def test_what_cannot_be_opened_ends_with_one_line_and_no_secret(run_command, arguments, words):
    outcome = run_command(*arguments)
    check_refused(outcome, words)
    assert "secret" not in str(outcome)
