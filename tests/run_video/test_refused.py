"""Arguments and inputs that run_video.py refuses before it starts, with one line and status 2."""

from __future__ import annotations

import os
import socket
import sys

import pytest

from engine.gpu import find_gpu
from tests.pipeline.fakes import write_clip
from tests.run_video.outcomes import COUNT, WH, check_refused, frames_of


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
def test_an_input_that_cannot_be_opened(run_command, tmp_path, name, content, words):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    check_refused(run_command(tmp_path / name), words)


def test_a_folder_without_images(run_command, tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    check_refused(run_command(tmp_path), "holds no images or videos")


def test_one_bad_source_among_good_ones_stops_before_any_work(run_command, clip, tmp_path):
    check_refused(run_command(clip, tmp_path / "missing.mp4", "--json", tmp_path / "a.jsonl"), "does not exist")
    assert not (tmp_path / "a.jsonl").exists()


def test_a_camera_that_is_not_there(run_command):
    check_refused(run_command(97), "camera 97 cannot be opened")


@pytest.mark.parametrize("number", ["100", "12345678901234567890", "9" * 5000])
def test_a_camera_number_that_no_camera_has(run_command, number):
    check_refused(run_command(number), f"camera {number} cannot be opened; expected a number from 0 to 99")


@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
def test_a_video_cut_inside_its_index(run_command, tmp_path, suffix):
    """The index is at the end: truncated near there, the file opens, but its codec is unknown."""
    content = write_clip(tmp_path / f"whole{suffix}", 20, wh=WH).read_bytes()
    cut = tmp_path / f"cut{suffix}"
    start = content.rindex(b"stsd")
    for size in (start - 40, start, start + 60, start + 110):
        cut.write_bytes(content[:size])
        check_refused(run_command(cut), rf"cut\{suffix} (cannot be opened|holds no)")


def test_a_dead_address(run_command):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    check_refused(run_command(f"rtsp://127.0.0.1:{port}/stream"), "refused")


def test_an_address_that_never_answers(run_command, monkeypatch):
    monkeypatch.setattr(
        "pipeline.sources.video.VideoSource.__init__.__kwdefaults__", {"open_timeout_s": 0.3, "read_timeout_s": 1}
    )
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        check_refused(
            run_command(f"rtsp://127.0.0.1:{server.getsockname()[1]}/stream"), r"did not answer within 0\.3 s"
        )


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
        (["--table", "a.xlsx"], r"a\.xlsx has no known table suffix; expected one of \.csv, \.parquet, \.json"),
        (["--nonsense"], "unrecognized arguments: --nonsense"),
        (["--model", "huge"], "no model is called 'huge'; expected a file, or one of tiny, small, w32-512"),
        (["--model", "none.onnx"], r"none\.onnx does not exist"),
        (["--save", "out.avi"], "expected one of .*mp4"),
        (["--save", ""], "--save: got an empty path, expected a file or folder name"),
        (["--json", ""], "--json: got an empty path"),
        (["--plot", ""], "--plot: got an empty path"),
        (["--plot", "x.foo"], r"--plot x\.foo: expected a name that ends in one of \..*png"),
        (["--save", "no/such/folder/out.mp4"], "folder no/such/folder does not exist"),
        (["--json", "no/such/folder/a.jsonl"], "folder no/such/folder does not exist"),
    ],
)
def test_wrong_arguments(run_command, clip, arguments, words):
    check_refused(run_command(clip, *arguments), words)


def test_no_source(run_command):
    check_refused(run_command(), "the following arguments are required: SOURCE")


@pytest.mark.parametrize("share", [0.0, 0.3, 0.8])
def test_a_noise_or_truncated_model(run_command, clip, model, tmp_path, share):
    content = model.read_bytes()
    (tmp_path / "bad.onnx").write_bytes(content[: int(len(content) * share)] or os.urandom(5000))
    check_refused(run_command(clip, "--model", tmp_path / "bad.onnx"), r"bad\.onnx is no readable ONNX model")


def test_an_engine_without_its_gpu(run_command, clip, monkeypatch):
    monkeypatch.setattr("pipeline.models.find_gpu", lambda index: (None, "no driver here"))
    check_refused(
        run_command(clip, "--engine", "tensorrt"), "engine tensorrt needs an NVIDIA GPU: no driver here; run `make gpu`"
    )


def test_outputs_that_cannot_be_opened(run_command, clip, tmp_path):
    (tmp_path / "folder").mkdir()
    check_refused(run_command(clip, "--save", clip), "is the input")
    check_refused(run_command(clip, "--json", clip), "is the input")
    check_refused(run_command(clip, "--json", tmp_path / "folder"), "is a folder")
    check_refused(run_command(clip, clip, "--save", tmp_path / "out.mp4"), "one file, but there are 2 sources")
    if sys.platform == "linux":
        check_refused(run_command(clip, "--save", "/proc/out.mp4"), r"/proc/out\.mp4 cannot be written")
        check_refused(run_command(clip, "--json", "/proc/a.jsonl"), r"/proc/a\.jsonl cannot be written")
    assert len(frames_of(clip)) == COUNT


def test_a_missing_model_leaves_an_older_output_alone(run_command, clip, tmp_path):
    (tmp_path / "a.jsonl").write_text("older\n")
    check_refused(run_command(clip, "--json", tmp_path / "a.jsonl", "--model", "none.onnx"), "does not exist")
    assert (tmp_path / "a.jsonl").read_text() == "older\n"


def test_no_display(run_command, clip, monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    check_refused(run_command(clip, "--show"), "no window can be shown: DISPLAY and WAYLAND_DISPLAY are not set")


@pytest.mark.skipif(find_gpu()[0] is not None, reason="there is a GPU here")
def test_a_video_gpu_that_is_not_there(run_command, clip, tmp_path):
    check_refused(run_command(clip, "--decoder", "gpu"), "--decoder gpu: no GPU decodes videos here: no NVIDIA driver")
    copy = tmp_path / "out.mp4"
    check_refused(
        run_command(clip, "--save", copy, "--encoder", "gpu"), "--encoder gpu: no GPU encodes videos here: no NVIDIA"
    )
    assert not copy.exists()
    check_refused(run_command(clip, "--encoder", "gpu"), "--encoder gpu is for annotated videos, and none is saved")
    check_refused(run_command(clip, "--decoder", "GPU"), "invalid choice: 'GPU'")
