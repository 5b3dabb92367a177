"""The sweep: what is measured, what is skipped and why, and the report of both."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from benchmarks import fps, fps_measure
from benchmarks.fps_measure import Combination, Measured, Round, Skipped, summarise
from benchmarks.fps_report import write_report
from core.signals import Stopped
from pipeline.stats import Percentiles
from tests.pipeline.fakes import write_clip
from tests.pipeline.onnx_models import blob_frame, write_blob_model

QUICK = ("--frames", "6", "--seconds", "0.02", "--rounds", "2")


@pytest.fixture
def model(tmp_path):
    return write_blob_model(tmp_path / "blobs.onnx")


@pytest.fixture
def clip(tmp_path):
    return write_clip(
        tmp_path / "walk.mp4", 20, wh=(96, 64), picture=lambda i: blob_frame((96, 64), [(20 + i, 30, 0.5)])
    )


@pytest.fixture
def swept(model, clip, tmp_path, capsys):
    """Run the command: status, the JSON document, the lines of stdout and stderr."""

    def run(*arguments: str) -> tuple[int, dict, str, list[str]]:
        out = tmp_path / "report"
        words = ["--models", str(model), "--source", str(clip), "--out", str(out), *QUICK, *arguments]
        try:
            status = fps.main(words)
        except SystemExit as stopped:
            status = int(str(stopped.code))
        captured = capsys.readouterr()
        document = json.loads((out / "fps.json").read_text()) if (out / "fps.json").exists() else {}
        return status, document, captured.out, captured.err.splitlines()

    return run


def test_engines_that_are_here_are_measured_and_others_skipped(swept, tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.models.find_gpu", lambda *_: (None, "no driver here"))
    status, document, out, err = swept("--engines", "onnxruntime", "tensorrt", "--flip", "both", "--sizes", "64", "128")
    assert (status, err) == (0, [])
    rows = document["measured"]
    assert [(row["size"], row["flip"], row["batch"], row["input"]) for row in rows] == [
        (64, False, 1, [1, 3, 64, 128]),
        (64, True, 1, [2, 3, 64, 128]),
        (128, False, 1, [1, 3, 128, 192]),
        (128, True, 1, [2, 3, 128, 192]),
    ]
    for row in rows:
        assert (row["engine"], row["precision"], row["people_a_frame"]) == ("onnxruntime", "fp32", 1.0)
        assert row["frames"] == 2 * (6 + fps_measure.WARM_UP_FRAMES)
        assert 0 < row["fps_range"][0] <= row["fps"] <= row["fps_range"][1]
        assert row["of_engine"] == pytest.approx(row["fps"] / row["engine_fps"], abs=1e-3)
        assert 0 < row["pass_ms"]["p50"] < row["latency_ms"]["p99"]
    assert {(one["engine"], one["failed"]) for one in document["skipped"]} == {("tensorrt", False)}
    assert "engine tensorrt needs an NVIDIA GPU: no driver here" in document["skipped"][0]["reason"]
    assert document["machine"]["CPU"]
    report = (tmp_path / "report" / "fps.md").read_text()
    assert out == report
    assert report.count("| onnxruntime |") == 4
    assert report.count("no driver here") == 1  # four combinations, one reason
    assert (tmp_path / "report" / "fps.png").read_bytes().startswith(b"\x89PNG")


def test_a_batch_counts_its_frames(swept, monkeypatch):
    """A pass of four frames that takes 20 ms gives 200 frames a second."""
    monkeypatch.setattr("pipeline.step.HostStep.time_engine", lambda *_, **__: [20.0] * 3)
    status, document, _, _ = swept("--engines", "onnxruntime", "--batches", "1", "4")
    assert status == 0
    rows = document["measured"]
    assert [(row["batch"], row["input"][0], row["engine_fps"], row["people_a_frame"]) for row in rows] == [
        (1, 1, 50.0, 1.0),
        (4, 4, 200.0, 1.0),
    ]


def test_what_nobody_can_run_here_is_a_failure(swept, monkeypatch):
    monkeypatch.setattr("pipeline.models.find_gpu", lambda *_: (None, "no driver here"))
    status, document, out, err = swept("--engines", "tensorrt")
    assert (status, document["measured"]) == (1, [])
    assert "no driver here" in out
    assert err == ["python -m benchmarks.fps: nothing could be measured here; see what was skipped"]


def test_one_that_fails_while_it_runs_ends_no_other(swept, monkeypatch):
    from kernels.cpu import decode

    def failing(*arguments):
        if arguments[0].shape[-1] == 64:  # the map of 128 pixels
            raise MemoryError("no more")
        return decode(*arguments)

    monkeypatch.setattr("kernels.cpu.decode", failing)
    monkeypatch.setattr("pipeline.step.HostStep.warm_up", lambda *_: None)
    status, document, _, err = swept("--engines", "onnxruntime", "--sizes", "64", "128")
    assert status == 1
    assert [row["size"] for row in document["measured"]] == [128]
    assert [(one["size"], one["failed"]) for one in document["skipped"]] == [(64, True)]
    assert len(err) == 1
    assert "onnxruntime blobs.onnx size 64 failed: group failed on frame 0" in err[0]


def test_what_was_measured_before_ctrl_c_is_reported(swept, monkeypatch):
    measure = fps_measure.measure
    rounds: list[object] = []

    def interrupted(combination, settings):
        if len(rounds) == 1:
            raise Stopped
        rounds.append(combination)
        return measure(combination, settings)

    monkeypatch.setattr(fps, "measure", interrupted)
    status, document, _, err = swept("--engines", "onnxruntime", "--sizes", "64", "128")
    assert status == 130
    assert [row["size"] for row in document["measured"]] == [64]
    assert err == ["python -m benchmarks.fps: interrupted; 1 combinations are in the report"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--batches", "1", "0"), "got 0, expected a whole number from 1 to "),
        (("--source", "none.mp4"), "none.mp4"),
        (("--engines", "cuda"), "invalid choice: 'cuda'"),
        (("--sizes", "100"), "got 100, expected a multiple of 64"),
        (("--rounds", "0"), "got 0, expected a positive whole number"),
    ],
)
def test_what_it_cannot_do_is_refused_at_once(swept, arguments, words):
    status, document, _, err = swept(*arguments)
    assert (status, document) == (2, {})
    assert len(err) == 1
    assert words in err[0]


def test_a_folder_that_cannot_be_written_is_refused(swept, tmp_path):
    (tmp_path / "report").write_bytes(b"")
    status, _, _, err = swept("--engines", "onnxruntime")
    assert (status, len(err)) == (2, 1)


ROUND = Round("fp32", (1, 64, 128), 10, 20, 30.0, 40.0, [20.0, 22.0], [30.0])


def test_rounds_are_summed_up_by_their_median():
    slow, fast = (
        replace(ROUND, fps=10.0, engine_fps=20.0, frames=30, people=0),
        replace(ROUND, fps=31.0, pass_ms=[90.0]),
    )
    found = summarise(Combination("openvino", "tiny", None, 1, False), [ROUND, slow, fast])
    assert (found.fps, found.fps_range, found.engine_fps) == (30.0, (10.0, 31.0), 40.0)
    assert (found.frames, found.people_a_frame) == (50, 0.8)
    assert found.engine_pass.p50 == np.median([20, 22, 20, 22, 90])
    assert found.of_engine == 0.75


def test_without_matplotlib_the_picture_is_left_out(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    combination = Combination("openvino", "tiny", None, 1, True)
    p = Percentiles(1.0, 2.0, 3.0)
    measured = Measured(combination, "bf16", (2, 64, 128), 9, 1.5, 30.0, (29.0, 31.0), 40.0, p, p)
    write_report(tmp_path, [measured], [Skipped(combination, "why")], {"CPU": "x"}, source=tmp_path, command="c")
    assert "fps.png is left out: it needs matplotlib" in caplog.text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fps.json", "fps.md"]


def test_the_bundled_clip_is_the_default(tmp_path):
    arguments = fps.parse(["--out", str(tmp_path)])
    fps.check(arguments)
    assert (arguments.models, arguments.sizes, arguments.batches) == (["small"], [None], [1])
    assert "auto" not in arguments.engines
