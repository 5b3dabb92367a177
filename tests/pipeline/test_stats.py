"""Recorder, Meter and Summary, compared with figures computed by hand."""

from __future__ import annotations

import io
import json
import time
from typing import Any

import cv2
import pytest
from rich.console import Console

from core.errors import SinkError
from pipeline.stats import MAX_SPANS, STAGES, Meter, Percentiles, Recorder, Ring, Summary, _lanes, save_plot


def recorded(**durations_ms: list[float]) -> Recorder:
    recorder = Recorder()
    for stage, values in durations_ms.items():
        for i, value in enumerate(values):
            recorder.record(stage, float(i), i + value / 1e3)
    return recorder


def summary(**changes) -> Summary:
    settings: dict[str, Any] = {
        "frames": 100, "dropped": 2, "fps": 24.0, "engine_fps": 30.0, "people": 250,
        "stages": {"capture": Percentiles(1, 2, 3), "infer": Percentiles(30.0004, 40, 50)},
        "latency": Percentiles(60, 70, 80), "engine": "onnxruntime", "model": "tiny", "input_wh": (384, 256),
        "precision": "fp32", "batch": 1,
    }  # fmt: skip
    return Summary(**settings | changes)


def test_what_a_stage_would_reach_alone_counts_frames_and_passes_at_the_same_time():
    table = summary(
        frames_per_pass=2,
        concurrent_passes=3,
        stages={"capture": Percentiles(10, 10, 10)} | dict.fromkeys(("preprocess", "infer"), Percentiles(40, 40, 40)),
    ).table()
    alone = dict(zip(table.columns[0].cells, table.columns[4].cells, strict=True))
    assert (alone["capture"], alone["preprocess"], alone["infer"]) == ("100.0", "50.0", "150.0")


def test_spans_at_the_same_time_lie_in_lanes():
    assert _lanes([(0, 2), (1, 3), (2, 4), (2.5, 5), (5, 6)]) == [0, 1, 0, 2, 0]
    assert _lanes([(0, 1), (1, 2)]) == [0, 0]


def test_percentiles():
    assert Percentiles.of([float(i) for i in range(101)]) == Percentiles(50, 95, 99)
    assert Percentiles.of([7.0]) == Percentiles(7, 7, 7)


def test_stages_come_in_pipeline_order_and_only_those_that_ran():
    recorder = recorded(encode=[1.0], infer=[2.0, 4.0], capture=[1.0])
    stages = Meter().stages(recorder)
    assert list(stages) == ["capture", "infer", "encode"]
    assert stages["infer"].p50 == pytest.approx(3.0)


def test_spans_before_a_moment_can_be_left_out():
    recorder = recorded(infer=[1.0, 2.0, 3.0])
    assert recorder.milliseconds("infer", since=1.0) == pytest.approx([2.0, 3.0])


def test_a_recorder_forgets_what_is_long_past():
    recorder = Recorder()
    for i in range(40_000):
        recorder.record("infer", i, i + 1)
    assert len(recorder.milliseconds("infer")) == 36_000
    assert recorder.milliseconds("infer", since=39_999) == [1000.0]


def test_warm_up_frames_count_in_totals_but_not_in_speed():
    meter = Meter(skip=2)
    meter.start()
    time.sleep(0.05)
    for i in range(5):
        meter.count(3, float(i))
    time.sleep(0.01)
    meter.stop()
    assert (meter.frames, meter.people) == (5, 15)
    assert meter.fps > 3 / 0.05  # the 50 ms before are not in it
    assert meter.latency() == Percentiles.of([2.0, 3.0, 4.0])


@pytest.mark.parametrize("count", [1, 3, 4])
def test_a_run_shorter_than_the_warm_up_is_measured_whole(count):
    meter = Meter(skip=4)
    meter.start()
    time.sleep(0.02)
    for _ in range(count):
        meter.count(0, 5.0)
    assert 0 < meter.fps < count / 0.02
    assert meter.latency() == Percentiles(5, 5, 5)
    assert list(meter.stages(recorded(infer=[1.0]))) == ["infer"]


def test_speed_stands_still_after_stop():
    meter = Meter()
    meter.start()
    meter.count(0, 1.0)
    meter.stop()
    before = meter.fps
    time.sleep(0.01)
    assert meter.fps == before > 0


def test_the_line_for_programs_is_as_documented():
    document = json.loads(summary().to_json())
    assert list(document) == [
        "frames",
        "dropped",
        "fps",
        "engine_fps",
        "people",
        "stages_ms",
        "engine",
        "model",
        "input",
    ]
    assert document["stages_ms"] == {
        "capture": {"p50": 1, "p95": 2, "p99": 3},
        "infer": {"p50": 30.0, "p95": 40, "p99": 50},
    }
    assert document["input"] == [384, 256]
    assert set(document["stages_ms"]) <= set(STAGES)


def test_a_benchmark_adds_to_that_line():
    document = json.loads(summary().to_json(machine={"CPU": "two cores"}))
    assert document["latency_ms"] == {"p50": 60, "p95": 70, "p99": 80}
    assert document["machine"] == {"CPU": "two cores"}
    assert (document["precision"], document["batch"]) == ("fp32", 1)


def test_the_sentence_hides_nothing():
    assert summary().sentence() == (
        "100 frames, 24.0 FPS end to end, 2.5 people a frame; engine alone 30.0 FPS, ratio 0.80; 2 frames dropped"
    )
    assert summary(frames=0, people=0, fps=0.0, engine_fps=None, dropped=0).sentence() == (
        "0 frames, 0.0 FPS end to end, no people"
    )


def test_the_table_has_a_row_for_each_stage():
    console = Console(width=80, record=True, quiet=False, file=open("/dev/null", "w"))  # noqa: PTH123, SIM115
    console.print(summary().table())
    text = console.export_text()
    for words in ("capture", "infer", "latency", "p50 ms", "FPS alone"):
        assert words in text


def test_the_plot_shows_the_stages(tmp_path):
    pytest.importorskip("matplotlib")
    recorder = recorded(capture=[100.0] * 5, infer=[500.0] * 5)
    save_plot(recorder, tmp_path / "a.png")
    picture = cv2.imread(str(tmp_path / "a.png"))
    assert picture is not None
    assert picture.shape[1] > 800
    assert picture.std() > 5


def test_a_plot_that_cannot_be_made_is_one_line(tmp_path, monkeypatch):
    with pytest.raises(SinkError, match="no frame was measured"):
        save_plot(Recorder(), tmp_path / "a.png")
    with pytest.raises(SinkError, match="cannot be written"):
        save_plot(recorded(infer=[1.0]), tmp_path / "a.unknown")
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    with pytest.raises(SinkError, match="--plot needs matplotlib, which is not installed"):
        save_plot(recorded(infer=[1.0]), tmp_path / "a.png")


def test_a_gpus_own_times_stand_in_the_table_and_in_a_benchmarks_json():
    parts = {"infer": Percentiles(1.5, 1.75, 2.0)}
    measured = summary(device=parts)
    assert json.loads(measured.to_json({"CPU": "x"}))["device_ms"] == {"infer": {"p50": 1.5, "p95": 1.75, "p99": 2.0}}
    assert "device_ms" not in json.loads(measured.to_json())
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(measured.table())
    assert "GPU infer" in console.export_text()


def test_a_ring_keeps_the_newest_in_the_memory_it_began_with():
    ring = Ring(5, 2)
    memory = ring._rows
    for i in range(13):
        ring.append(float(i), i + 0.5)
        assert ring.rows()[:, 0].tolist() == [float(j) for j in range(max(0, i - 4), i + 1)]
    assert ring.rows()[-1].tolist() == [12.0, 12.5]
    assert (len(ring), ring._rows is memory) == (5, True)
    ring.clear()
    assert (len(ring), ring.rows().shape) == (0, (0, 2))


def test_a_run_of_weeks_needs_no_more_memory_than_one_of_minutes():
    recorder, meter = Recorder(), Meter()
    meter.start()
    for i in range(MAX_SPANS + 7):
        recorder.record("infer", float(i), i + 1.0)
        meter.count(0, float(i))
    assert len(recorder.milliseconds("infer")) == len(recorder.spans["infer"]) == MAX_SPANS
    assert recorder.milliseconds("infer", since=MAX_SPANS + 5.0) == [1e3, 1e3]
    latency = meter.latency()
    assert latency is not None
    assert latency.p50 == pytest.approx(MAX_SPANS / 2 + 7, abs=1)
