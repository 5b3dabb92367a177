"""run_video.py as it is typed: what comes out, and one line and the right status for all that goes wrong."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

import run_video
from pipeline import PosePipeline, open_source
from pipeline.stats import Recorder
from tests.pipeline.fakes import write_clip
from tests.pipeline.onnx_models import blob_frame, write_blob_model

WH = (160, 128)
COUNT = 12


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> Path:
    return write_blob_model(tmp_path_factory.mktemp("model") / "blobs.onnx")


def position(i: int) -> tuple[float, float]:
    return 30.0 + 8 * i, 64.0


@pytest.fixture(scope="session")
def clip(tmp_path_factory) -> Path:
    """One blob that walks to the right, 8 pixels a frame."""
    path = tmp_path_factory.mktemp("clip") / "walk.mp4"
    return write_clip(path, COUNT, wh=WH, picture=lambda i: blob_frame(WH, [(*position(i), 0.5)]))


@pytest.fixture
def typed(model, capfd) -> Callable[..., tuple[int, list[str], list[str]]]:
    """Run the command in this process: status, lines of stdout and of stderr."""

    def run(*arguments: object, **options: object) -> tuple[int, list[str], list[str]]:
        argv = [str(argument) for argument in arguments]
        if "--model" not in argv:
            argv += ["--model", str(model)]
        try:
            status = run_video.main(argv)
        except SystemExit as stopped:  # argparse
            status = int(str(stopped.code))
        captured = capfd.readouterr()
        return status, captured.out.splitlines(), captured.err.splitlines()

    return run


def json_lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def frames_of(path: Path) -> list:
    with av.open(str(path)) as container:
        return list(container.decode(video=0))


def test_a_video_in_people_and_video_out(typed, clip, tmp_path):
    video, lines = tmp_path / "out.mp4", tmp_path / "out.jsonl"
    status, out, err = typed(clip, "--save", video, "--json", lines)
    assert (status, err) == (0, [])
    documents = json_lines(lines)
    assert [document["frame"] for document in documents] == list(range(COUNT))
    assert {document["source"] for document in documents} == {str(clip)}
    assert [document["time_s"] for document in documents] == pytest.approx([i / 10 for i in range(COUNT)])
    for i, document in enumerate(documents):
        (person,) = document["people"]
        assert person["keypoints"][0][:2] == pytest.approx(position(i), abs=1.5)
    assert [frame.pts * frame.time_base for frame in frames_of(video)] == [
        frame.pts * frame.time_base for frame in frames_of(clip)
    ]
    assert any(re.search(rf"{COUNT} frames, .* FPS end to end, 1.0 people a frame", line) for line in out)
    assert any(line.startswith("infer") for line in out)


def test_an_image_in_an_image_out(typed, tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), blob_frame(WH, [(80, 64, 0.5)]))
    status, _, err = typed(tmp_path / "a.png", "--save", tmp_path / "b.png")
    assert (status, err) == (0, [])
    before, after = cv2.imread(str(tmp_path / "a.png")), cv2.imread(str(tmp_path / "b.png"))
    assert before is not None
    assert after is not None
    assert before.shape == after.shape
    assert (before != after).any()


def test_several_sources_go_into_a_folder(typed, clip, tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    for i in (10, 9):
        cv2.imwrite(str(photos / f"p{i}.png"), blob_frame((100 + i, 90), [(50, 40, 0.5)]))
    status, _, err = typed(photos, clip, "--save", tmp_path / "out", "--json", tmp_path / "a.jsonl")
    assert (status, err) == (0, [])
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["p10.png", "p9.png", "walk.mp4"]
    assert len(frames_of(tmp_path / "out" / "walk.mp4")) == COUNT
    sources = [Path(document["source"]).name for document in json_lines(tmp_path / "a.jsonl")]
    assert sources == ["p9.png", "p10.png"] + ["walk.mp4"] * COUNT


def test_stats_are_the_last_line(typed, clip, monkeypatch):
    monkeypatch.setattr(run_video, "ENGINE_SECONDS", 0.01)
    status, out, _ = typed(clip, "--stats", "json")
    document = json.loads(out[-1])
    assert status == 0
    assert (document["frames"], document["people"], document["dropped"]) == (COUNT, COUNT, 0)
    assert (document["engine"], document["model"], document["input"]) == ("onnxruntime", "blobs", [192, 128])
    assert list(document["stages_ms"]) == ["capture", "preprocess", "infer", "group"]
    assert document["fps"] > 0
    assert document["engine_fps"] > 0


def test_a_benchmark_says_what_it_was_measured_on(typed, clip, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(run_video, "ENGINE_SECONDS", 0.01)
    monkeypatch.setattr(run_video, "WARM_UP_FRAMES", 4)
    plot = tmp_path / "stages.png"
    status, out, err = typed(clip, "--benchmark", "--plot", plot, "--stats", "json", "--save", tmp_path / "out.mp4")
    assert (status, err) == (0, [])
    text = "\n".join(out)
    for words in (
        "engine alone",
        "ratio",
        "latency",
        "draw",
        "encode",
        "input 192x128, batch 1, fp32",
        "CPU: ",
        "GPU: ",
    ):
        assert words in text
    assert json.loads(out[-1])["machine"]["versions"]
    assert plot.stat().st_size > 1000


def test_serial_stages_explain_the_whole_time(model, tmp_path):
    long = write_clip(
        tmp_path / "long.mp4", 60, wh=(640, 480), picture=lambda i: blob_frame((640, 480), [(300, 200, 0.5)])
    )
    shares = []
    for _ in range(3):  # another process may take the processor in between: the best of three
        recorder = Recorder()
        with PosePipeline(str(model), engine="onnxruntime") as pose:
            pose.warm_up((640, 480))
            started = time.perf_counter()
            for _ in pose.run(open_source(long), serial=True, recorder=recorder):
                pass
            elapsed = time.perf_counter() - started
        shares.append(sum(stop - start for spans in recorder.spans.values() for start, stop in spans) / elapsed)
    assert 0.95 <= max(shares) <= 1


def test_limit_flip_and_size(typed, clip, tmp_path):
    status, _, err = typed(clip, "--limit", 3, "--flip", "--size", 256, "--json", tmp_path / "a.jsonl", "--serial")
    assert (status, err) == (0, [])
    documents = json_lines(tmp_path / "a.jsonl")
    assert len(documents) == 3
    assert documents[2]["people"][0]["keypoints"][0][:2] == pytest.approx(position(2), abs=1.5)


def test_a_high_threshold_hides_people(typed, clip, tmp_path):
    typed(clip, "--json", tmp_path / "a.jsonl", "--min-score", 1)
    assert [document["people"] for document in json_lines(tmp_path / "a.jsonl")] == [[]] * COUNT


def test_realtime_takes_as_long_as_the_clip(typed, clip, monkeypatch):
    monkeypatch.setattr(run_video, "ENGINE_SECONDS", 0.01)
    status, out, _ = typed(clip, "--realtime", "--stats", "json")
    document = json.loads(out[-1])
    assert status == 0
    assert document["frames"] + document["dropped"] == COUNT
    assert document["fps"] <= 1.1 * COUNT / ((COUNT - 1) / 10)


def test_help_has_examples_and_warns_of_plans(typed):
    status, out, _ = typed("--help")
    text = "\n".join(out)
    assert status == 0
    for words in ("examples:", "rtsp://", "--benchmark", "load only plans that you built or trust", "exit status"):
        assert words in text


# ---- what goes wrong: status 2, one line


def refused(outcome: tuple[int, list[str], list[str]], words: str, status: int = 2) -> None:
    got, _, err = outcome
    assert got == status, err
    assert len(err) == 1, err
    assert re.search(words, err[0]), err
    assert err[0].startswith("run_video.py: ")
    assert "Traceback" not in err[0]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("missing.mp4", None, r"missing\.mp4 does not exist"),
        ("text.mp4", b"hello\n" * 300, "not a video"),
        ("empty.mp4", b"", "is empty"),
        ("header.mp4", b"\x00\x00\x00\x18ftypisom\x00\x00\x02\x00isomiso2" + b"\x7f" * 5000, "cannot be opened"),
        ("noise.mp4", bytes(range(256)) * 500, "not a video"),
        ("empty.jpg", b"", "is empty"),
        ("text.jpg", b"hello", "not a readable image"),
        ("notes.txt", b"hello\n" * 300, "holds no video"),
    ],
)
def test_an_input_that_cannot_be_opened(typed, tmp_path, name, content, words):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    refused(typed(tmp_path / name), words)


def test_a_folder_without_images(typed, tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    refused(typed(tmp_path), "holds no images or videos")


def test_one_bad_source_among_good_ones_stops_before_any_work(typed, clip, tmp_path):
    refused(typed(clip, tmp_path / "missing.mp4", "--json", tmp_path / "a.jsonl"), "does not exist")
    assert not (tmp_path / "a.jsonl").exists()


def test_a_camera_that_is_not_there(typed):
    refused(typed(97), "camera 97 cannot be opened")


def test_a_dead_address(typed):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    refused(typed(f"rtsp://127.0.0.1:{port}/stream"), "refused")


def test_an_address_that_never_answers(typed, monkeypatch):
    monkeypatch.setattr(
        "pipeline.video.VideoSource.__init__.__kwdefaults__", {"open_timeout_s": 0.3, "read_timeout_s": 1}
    )
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        refused(typed(f"rtsp://127.0.0.1:{server.getsockname()[1]}/stream"), r"did not answer within 0\.3 s")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--size", "0"], "--size: got 0, expected a multiple of 64"),
        (["--size", "100"], "--size: got 100"),
        (["--size", "big"], "--size: got big"),
        (["--max-people", "-1"], "--max-people: got -1, expected a whole number from 1 to 128"),
        (["--max-people", "1000"], "--max-people: got 1000"),
        (["--min-score", "1.5"], "--min-score: got 1.5, expected a number from 0 to 1"),
        (["--min-joint", "nan"], "--min-joint: got nan"),
        (["--limit", "0"], "--limit: got 0"),
        (["--engine", "cuda"], "--engine: invalid choice"),
        (["--stats", "xml"], "--stats: invalid choice"),
        (["--nonsense"], "unrecognized arguments: --nonsense"),
        (["--model", "huge"], "no model is called 'huge'; expected a file, or one of tiny, w32-512"),
        (["--model", "none.onnx"], r"none\.onnx does not exist"),
        (["--save", "out.avi"], "expected one of .*mp4"),
        (["--save", "no/such/folder/out.mp4"], "folder no/such/folder does not exist"),
        (["--json", "no/such/folder/a.jsonl"], "folder no/such/folder does not exist"),
    ],
)
def test_wrong_arguments(typed, clip, arguments, words):
    refused(typed(clip, *arguments), words)


def test_no_source(typed):
    refused(typed(), "the following arguments are required: SOURCE")


@pytest.mark.parametrize("share", [0.0, 0.3, 0.8])
def test_a_noise_or_truncated_model(typed, clip, model, tmp_path, share):
    content = model.read_bytes()
    (tmp_path / "bad.onnx").write_bytes(content[: int(len(content) * share)] or os.urandom(5000))
    refused(typed(clip, "--model", tmp_path / "bad.onnx"), r"bad\.onnx is no readable ONNX model")


def test_an_engine_without_its_gpu(typed, clip, monkeypatch):
    monkeypatch.setattr("pipeline.models.find_gpu", lambda: (None, "no driver here"))
    refused(typed(clip, "--engine", "tensorrt"), "engine tensorrt needs an NVIDIA GPU: no driver here; run `make gpu`")


def test_outputs_that_cannot_be_opened(typed, clip, tmp_path):
    (tmp_path / "folder").mkdir()
    refused(typed(clip, "--save", clip), "is the input itself")
    refused(typed(clip, "--json", clip), "is the input itself")
    refused(typed(clip, "--json", tmp_path / "folder"), "is a folder")
    refused(typed(clip, clip, "--save", tmp_path / "out.mp4"), "one file, but there are 2 sources")
    if sys.platform == "linux":
        refused(typed(clip, "--save", "/proc/out.mp4"), r"/proc/out\.mp4 cannot be written")
        refused(typed(clip, "--json", "/proc/a.jsonl"), r"/proc/a\.jsonl cannot be written")
    assert len(frames_of(clip)) == COUNT


def test_a_missing_model_leaves_an_older_output_alone(typed, clip, tmp_path):
    (tmp_path / "a.jsonl").write_text("older\n")
    refused(typed(clip, "--json", tmp_path / "a.jsonl", "--model", "none.onnx"), "does not exist")
    assert (tmp_path / "a.jsonl").read_text() == "older\n"


def test_no_display(typed, clip, monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    refused(typed(clip, "--show"), "no window can be shown: DISPLAY and WAYLAND_DISPLAY are not set")


def test_q_in_the_window_is_a_good_end(typed, clip, tmp_path, monkeypatch):
    monkeypatch.setenv("DISPLAY", ":0")
    shown = []
    for name in ("namedWindow", "resizeWindow", "destroyAllWindows"):
        monkeypatch.setattr(cv2, name, lambda *_: None)
    monkeypatch.setattr(cv2, "imshow", lambda title, picture: shown.append(picture.copy()))
    monkeypatch.setattr(cv2, "waitKey", lambda _: ord("q") if len(shown) == 4 else -1)
    monkeypatch.setattr(cv2, "getWindowProperty", lambda *_: 1)
    status, _, err = typed(clip, "--show", "--json", tmp_path / "a.jsonl")
    assert (status, err) == (0, [])
    assert len(shown) == len(json_lines(tmp_path / "a.jsonl")) == 4


# ---- what goes wrong while running: status 1, what came before is written


def test_a_truncated_video(typed, tmp_path):
    rng = np.random.default_rng(0)
    pictures = [
        blob_frame(WH, [(*position(i), 0.5)]) | rng.integers(0, 8, (WH[1], WH[0], 3), np.uint8) for i in range(30)
    ]
    whole = write_clip(
        tmp_path / "whole.mp4", 30, wh=WH, picture=lambda i: pictures[i], options={"movflags": "faststart"}
    )
    content = whole.read_bytes()
    (tmp_path / "cut.mp4").write_bytes(content[: len(content) * 6 // 10])
    video, lines = tmp_path / "out.mp4", tmp_path / "a.jsonl"
    outcome = typed(tmp_path / "cut.mp4", "--save", video, "--json", lines)
    count = len(json_lines(lines))
    assert 10 < count < 25
    refused(outcome, rf"cut\.mp4 is cut short: it ends after frame {count - 1}", status=1)
    assert len(frames_of(video)) == count


def test_a_full_disk(typed, clip):
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this system")
    words = r"/dev/full cannot be written further: No space left on device \(frame 0 of .*walk\.mp4\)"
    refused(typed(clip, "--json", "/dev/full"), words, status=1)


def test_a_stage_that_fails_names_the_frame(typed, clip, tmp_path, monkeypatch):
    decode, calls = __import__("kernels.cpu").cpu.decode, []

    def failing(*arguments: object):
        calls.append(1)
        if len(calls) == 6:
            raise MemoryError("no more")
        return decode(*arguments)

    monkeypatch.setattr("kernels.cpu.decode", failing)
    lines = tmp_path / "a.jsonl"
    outcome = typed(clip, "--json", lines, "--save", tmp_path / "out.mp4")
    refused(outcome, r"group failed on frame 5 of .*walk\.mp4: MemoryError: no more", status=1)
    assert len(json_lines(lines)) == len(frames_of(tmp_path / "out.mp4")) == 5


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize("when", ["early", "later"])
def test_ctrl_c_finishes_the_outputs(model, tmp_path, when):
    long = write_clip(tmp_path / "long.mp4", 600, wh=WH, picture=lambda i: blob_frame(WH, [(80, 64, 0.5)]))
    video, lines = tmp_path / "out.mp4", tmp_path / "a.jsonl"
    command = [sys.executable, "run_video.py", str(long), "--model", str(model), "--realtime"]
    process = subprocess.Popen(
        [*command, "--save", str(video), "--json", str(lines)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wanted = 1 if when == "early" else 12
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and (not lines.exists() or lines.read_text().count("\n") < wanted):
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    count = len(json_lines(lines))
    assert process.returncode == 130
    assert err.splitlines() == [f"run_video.py: interrupted after {count} frames; what was written is finished"]
    assert count >= wanted
    assert len(frames_of(video)) == count
