"""The one command for a GPU: steps that fail, hang or were cut, with small commands in their place."""

from __future__ import annotations

import json
import re
import sys
import time

import pytest

from benchmarks import gpu
from engine.gpu import Gpu


def python(name, code, seconds=60):
    return gpu.Step(name, ("-c", code), seconds)


@pytest.fixture
def planned(monkeypatch):
    """The steps that main runs; a test fills the list."""
    steps: list[gpu.Step] = []
    monkeypatch.setattr(gpu, "steps", lambda out: iter(steps))
    return steps


def verdicts(out):
    return {name: entry["verdict"] for name, entry in json.loads((out / "steps.json").read_text()).items()}


def test_a_failed_a_hung_and_a_missing_step_do_not_stop_the_rest(planned, tmp_path):
    planned += [
        python("good", "print('forty', 'two')"),
        python("bad", "raise SystemExit('no such GPU')"),
        python("hangs", "import time; print('begun', flush=True); time.sleep(60)", seconds=1),
        gpu.Step("missing", (), 5, program=str(tmp_path / "nvidia-smi")),
        python("last", "print('still here')"),
    ]
    assert gpu.main(["--out", str(tmp_path)]) == 1
    found = verdicts(tmp_path)
    assert found.pop("missing").endswith("nvidia-smi cannot be run")
    assert found == {"good": "ok", "bad": "status 1", "hangs": "over its 1 s", "last": "ok"}
    text = (tmp_path / "summary.md").read_text()
    assert all(words in text for words in ("forty two", "no such GPU", "begun", "still here", "| bad | status 1 |"))


def test_the_command_goes_on_with_what_has_not_ended_well(planned, tmp_path):
    mark = tmp_path / "there"
    count = tmp_path / "count"
    planned += [
        python("once", f"open({str(count)!r}, 'a').write('x')"),
        python("later", f"import os; raise SystemExit(0 if os.path.exists({str(mark)!r}) else 3)"),
    ]
    assert gpu.main(["--out", str(tmp_path)]) == 1
    mark.touch()
    assert gpu.main(["--out", str(tmp_path)]) == 0
    assert count.read_text() == "x"
    assert gpu.main(["--out", str(tmp_path), "--only", "once"]) == 0
    assert count.read_text() == "xx"


def test_no_step_starts_after_the_minutes_are_over(planned, tmp_path):
    planned += [python("never", "print('x')")]
    assert gpu.main(["--out", str(tmp_path), "--minutes", "0"]) == 3
    assert not (tmp_path / "never.log").exists()


@pytest.mark.parametrize(("answer", "expected"), [("TensorRT-RTX runs here", "ok"), ("it refuses", "left out")])
def test_steps_of_an_engine_that_refuses_the_gpu_are_left_out_and_that_is_no_failure(
    answer, expected, planned, tmp_path
):
    planned += [
        python("rtx", f"print({answer!r})"),
        gpu.Step("frame", ("-c", "print('ran')"), 60, needs=("rtx", gpu.RTX_RUNS)),
    ]
    assert gpu.main(["--out", str(tmp_path)]) == 0
    assert verdicts(tmp_path) == {"rtx": "ok", "frame": expected}
    assert (tmp_path / "frame.log").exists() == (expected == "ok")
    assert answer in (tmp_path / "summary.md").read_text()  # the refusal in its own words
    assert gpu.main(["--out", str(tmp_path)]) == 0  # and it stays so


def test_every_test_that_needs_a_gpu_is_run():
    tests = gpu.ROOT / "tests"
    marked = {
        file
        for file in tests.rglob("test_*.py")
        if re.search(r"^(@|pytestmark = .*)pytest\.mark\.gpu", file.read_text(), re.M)
    }
    assert {gpu.ROOT / name for name in gpu.GPU_TESTS} == marked


def test_the_answer_of_the_rtx_step_is_the_one_that_the_others_wait_for():
    pytest.importorskip("tensorrt_rtx")
    from benchmarks import rtx

    assert rtx.RUNS == gpu.RTX_RUNS
    assert rtx.CLIP.is_file()
    needing = {step.name for step in gpu.steps(gpu.ROOT) if step.needs is not None}
    assert {"frame-tiny-tensorrt-rtx", "video-w32-tensorrt-rtx"} <= needing


@pytest.mark.parametrize(
    ("works", "capability", "status"),
    [(True, (8, 9), 0), (False, (8, 9), 1), (True, (9, 0), 0), (False, (9, 0), 0), (False, None, 1)],
)
def test_a_refusal_by_a_gpu_that_tensorrt_rtx_is_not_made_for_is_an_answer(works, capability, status):
    pytest.importorskip("tensorrt_rtx")
    from benchmarks import rtx

    found = None if capability is None else Gpu("NVIDIA Test", capability, 1, (13, 0))
    assert rtx.status(works, found) == status


def test_the_rtx_step_runs_on_the_gpu_that_was_named(monkeypatch):
    pytest.importorskip("tensorrt_rtx")
    from benchmarks import rtx

    used: set[int] = set()

    def build(path, target, index):
        used.add(index)
        path.write_bytes(b"plan")
        return path

    def run(plan, index):
        used.add(index)
        return "runs"

    monkeypatch.setattr(rtx, "find_gpu", lambda index: (None, f"GPU {index}"))
    monkeypatch.setattr(rtx, "build", build)
    monkeypatch.setattr(rtx, "run", run)
    assert rtx.main(["--gpu", "2"]) == 0
    assert used == {2}


def test_what_a_step_leaves_running_ends_with_it(tmp_path):
    late = tmp_path / "late"
    child = f"import time; time.sleep(1.5); open({str(late)!r}, 'w')"
    step = python("parent", f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {child!r}])")
    assert gpu.run(step, tmp_path / "log", 30)[0] == "ok"
    time.sleep(2)
    assert not late.exists()


def test_an_unknown_step_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        gpu.main(["--out", str(tmp_path), "--only", "everything"])
    assert "selfcheck" in capsys.readouterr().err


def test_every_module_and_file_that_a_step_runs_is_there(tmp_path):
    for step in gpu.steps(tmp_path):
        if step.program != sys.executable:
            continue
        if step.command[0] == "-m":
            name = step.command[1]
            assert name in ("pip", "pytest") or (gpu.ROOT / f"{name.replace('.', '/')}.py").is_file(), name
        elif step.command[0] != "-c":
            assert (gpu.ROOT / step.command[0]).is_file()


def test_random_weights_of_w32_open_as_a_checkpoint(tmp_path):
    pytest.importorskip("torch")
    from export.checkpoint import build_from_checkpoint

    path = tmp_path / "w32.safetensors"
    assert gpu.run(gpu.Step("w32", ("-c", gpu.RANDOM_W32, str(path)), 120), tmp_path / "log", 120)[0] == "ok"
    assert sum(p.numel() for p in build_from_checkpoint(path).parameters()) == pytest.approx(28.6e6, rel=0.01)
