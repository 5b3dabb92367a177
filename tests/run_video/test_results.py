"""Results of run_video.py: people and pictures for each kind of source, statistics, help."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import cv2
import pytest

import run_video
from pipeline import PosePipeline, open_source
from pipeline.stats import Recorder
from tests.pipeline.fakes import write_clip
from tests.pipeline.onnx_models import blob_frame
from tests.run_video.outcomes import COUNT, WH, frames_of, json_lines, position


def test_a_video_in_people_and_video_out(run_command, clip, tmp_path):
    video, lines = tmp_path / "out.mp4", tmp_path / "out.jsonl"
    status, out, err = run_command(clip, "--save", video, "--json", lines)
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


def test_a_table_holds_what_the_json_lines_hold(run_command, clip, tmp_path):
    status, _, err = run_command(clip, "--table", tmp_path / "a.csv", "--json", tmp_path / "a.jsonl")
    assert (status, err) == (0, [])
    header, *rows = [line.split(",") for line in (tmp_path / "a.csv").read_text().splitlines()]
    documents = json_lines(tmp_path / "a.jsonl")
    assert len(rows) == len(documents) == COUNT
    noses = [document["people"][0]["keypoints"][0] for document in documents]
    at = header.index("nose_x")
    assert [[float(value) for value in row[at : at + 3]] for row in rows] == noses


@pytest.mark.parametrize("name", ["-", "/dev/stdout"])
@pytest.mark.parametrize("into", ["pipe", "file"])
def test_json_lines_on_stdout_are_alone_there(model, clip, tmp_path, name, into):
    command = [sys.executable, "run_video.py", str(clip), "--model", str(model), "--json", name, "--stats", "json"]
    with (tmp_path / "a.jsonl").open("wb") as file:
        done = subprocess.run(
            command, stdout=subprocess.PIPE if into == "pipe" else file, stderr=subprocess.PIPE, check=False, timeout=60
        )
    lines = done.stdout if into == "pipe" else (tmp_path / "a.jsonl").read_bytes()
    assert done.returncode == 0
    assert [json.loads(line)["frame"] for line in lines.splitlines()] == list(range(COUNT))
    assert json.loads(done.stderr.splitlines()[-1])["frames"] == COUNT


def test_a_name_that_is_not_utf8_is_a_name(run_command, clip, tmp_path):
    try:
        odd = Path(shutil.copy(clip, os.fsdecode(os.fsencode(tmp_path) + b"/f\xff.mp4")))
    except OSError:
        pytest.skip("this file system takes no such name")
    table = tmp_path / "people.csv"
    status, _, err = run_command(odd, "--table", table, "--json", tmp_path / "a.jsonl")
    assert (status, err) == (0, [])
    assert "f\ufffd.mp4,0," in table.read_text()


def test_an_image_in_an_image_out(run_command, tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), blob_frame(WH, [(80, 64, 0.5)]))
    status, _, err = run_command(tmp_path / "a.png", "--save", tmp_path / "b.png")
    assert (status, err) == (0, [])
    before, after = cv2.imread(str(tmp_path / "a.png")), cv2.imread(str(tmp_path / "b.png"))
    assert before is not None
    assert after is not None
    assert before.shape == after.shape
    assert (before != after).any()


def test_several_sources_go_into_a_folder(run_command, clip, tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    for i in (10, 9):
        cv2.imwrite(str(photos / f"p{i}.png"), blob_frame((100 + i, 90), [(50, 40, 0.5)]))
    status, _, err = run_command(photos, clip, "--save", tmp_path / "out", "--json", tmp_path / "a.jsonl")
    assert (status, err) == (0, [])
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["p10.png", "p9.png", "walk.mp4"]
    assert len(frames_of(tmp_path / "out" / "walk.mp4")) == COUNT
    sources = [Path(document["source"]).name for document in json_lines(tmp_path / "a.jsonl")]
    assert sources == ["p9.png", "p10.png"] + ["walk.mp4"] * COUNT


def test_stats_are_the_last_line(run_command, clip, monkeypatch):
    monkeypatch.setattr(run_video, "ENGINE_SECONDS", 0.01)
    status, out, _ = run_command(clip, "--stats", "json", "--engine", "onnxruntime")
    document = json.loads(out[-1])
    assert status == 0
    assert (document["frames"], document["people"], document["dropped"]) == (COUNT, COUNT, 0)
    assert (document["engine"], document["model"], document["input"]) == ("onnxruntime", "blobs", [192, 128])
    assert list(document["stages_ms"]) == ["capture", "preprocess", "infer", "group"]
    assert document["fps"] > 0
    assert document["engine_fps"] > 0


def test_a_benchmark_says_what_it_was_measured_on(run_command, clip, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(run_video, "ENGINE_SECONDS", 0.01)
    monkeypatch.setattr(run_video, "WARM_UP_FRAMES", 4)
    plot = tmp_path / "stages.png"
    status, out, err = run_command(
        clip, "--benchmark", "--plot", plot, "--stats", "json", "--save", tmp_path / "out.mp4"
    )
    assert (status, err) == (0, [])
    text = "\n".join(out)
    for words in (
        "engine alone",
        "ratio",
        "latency",
        "draw",
        "encode",
        "input 192x128, batch 1, ",
        "CPU: ",
        "GPU: ",
    ):
        assert words in text
    assert json.loads(out[-1])["precision"] in ("fp32", "bf16")  # as the processor has it
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
        shares.append(sum(stop - start for spans in recorder.spans.values() for start, stop in spans.rows()) / elapsed)
    assert 0.85 <= max(shares) <= 1


def test_limit_flip_and_size(run_command, clip, tmp_path):
    status, _, err = run_command(
        clip, "--limit", 3, "--flip", "--size", 256, "--json", tmp_path / "a.jsonl", "--serial"
    )
    assert (status, err) == (0, [])
    documents = json_lines(tmp_path / "a.jsonl")
    assert len(documents) == 3
    assert documents[2]["people"][0]["keypoints"][0][:2] == pytest.approx(position(2), abs=1.5)


def test_a_high_threshold_hides_people(run_command, clip, tmp_path):
    run_command(clip, "--json", tmp_path / "a.jsonl", "--min-score", 1)
    assert [document["people"] for document in json_lines(tmp_path / "a.jsonl")] == [[]] * COUNT


def test_realtime_takes_as_long_as_the_clip(run_command, clip, monkeypatch):
    monkeypatch.setattr(run_video, "ENGINE_SECONDS", 0.01)
    status, out, _ = run_command(clip, "--realtime", "--stats", "json")
    document = json.loads(out[-1])
    assert status == 0
    assert document["frames"] + document["dropped"] == COUNT
    assert document["fps"] <= 1.1 * COUNT / ((COUNT - 1) / 10)


def test_help_has_examples_and_warns_of_plans(run_command):
    status, out, _ = run_command("--help")
    text = "\n".join(out)
    assert status == 0
    for words in ("examples:", "rtsp://", "--benchmark", "load only plans that you built or trust", "exit status"):
        assert words in text


def test_q_in_the_window_is_a_good_end(run_command, clip, tmp_path, monkeypatch):
    monkeypatch.setenv("DISPLAY", ":0")
    shown = []
    for name in ("namedWindow", "resizeWindow", "destroyAllWindows"):
        monkeypatch.setattr(cv2, name, lambda *_: None)
    monkeypatch.setattr(cv2, "imshow", lambda title, picture: shown.append(picture.copy()))
    monkeypatch.setattr(cv2, "waitKey", lambda _: ord("q") if len(shown) == 4 else -1)
    monkeypatch.setattr(cv2, "getWindowProperty", lambda *_: 1)
    status, _, err = run_command(clip, "--show", "--json", tmp_path / "a.jsonl")
    assert (status, err) == (0, [])
    assert len(shown) == len(json_lines(tmp_path / "a.jsonl")) == 4


def test_videos_side_by_side_have_each_their_own_file_and_state(run_command, clip, tmp_path):
    other = write_clip(tmp_path / "other.mp4", 6, wh=WH, picture=lambda i: blob_frame(WH, [(*position(i), 0.5)]))
    folder, lines = tmp_path / "out", tmp_path / "out.jsonl"
    status, out, err = run_command(clip, other, "--realtime", "--save", folder, "--json", lines, "--stats", "json")
    assert (status, err) == (0, [])
    stats = json.loads(out[-1])
    assert [state["name"] for state in stats["sources"]] == [str(clip), str(other)]
    assert [state["state"] for state in stats["sources"]] == ["ended", "ended"]
    documents = json_lines(lines)
    for path, state in zip((clip, other), stats["sources"], strict=True):
        indices = [document["frame"] for document in documents if document["source"] == str(path)]
        assert indices == sorted(set(indices))
        assert len(indices) == state["frames"] > 0
        assert len(frames_of(folder / f"{path.stem}.mp4")) == len(indices)
    assert any(line.startswith(f"{clip}: ended, ") for line in out)
    assert stats["dropped"] == sum(state["dropped"] for state in stats["sources"])
