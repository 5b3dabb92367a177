"""Kernels launched through numba-cuda, with a stand-in of the driver that uses host memory and records each call."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_name("host_driver.c")
ROOT = Path(__file__).resolve().parents[3]
DECODE = ("peaks", "select", "group", "refine", "filter")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The folder of the driver's stand-in and of the cache."""
    compiler = shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("needs Linux and a C compiler, for a stand-in of libcuda.so.1")
    folder: Path = tmp_path_factory.mktemp("driver")
    build = [compiler, "-shared", "-fPIC", "-w", "-Wl,-soname,libcuda.so.1", "-o", str(folder / "libcuda.so.1")]
    subprocess.run([*build, str(SOURCE), "-ldl"], check=True)
    return folder


def run_kernels(folder: Path) -> dict:
    run = subprocess.run(
        [sys.executable, "-m", "tests.kernels.cuda.driver_calls"],
        cwd=ROOT,
        env={**os.environ, "LD_LIBRARY_PATH": str(folder), "XDG_CACHE_HOME": str(folder / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert "Traceback" not in run.stderr, run.stderr  # also of what is freed at the process's end
    answer: dict = json.loads(run.stdout.splitlines()[-1])
    return answer


@pytest.fixture(scope="module")
def asked(folder) -> dict:
    """The calls of a process that finds no compiled kernels."""
    return run_kernels(folder)


def kernels_of(calls: list[str]) -> list[str]:
    """The module each launched kernel is from; a call that is no launch stays as it is."""
    modules = (*DECODE, "preprocess")
    return [next((m for m in modules if f"4cuda{len(m)}{m}" in call), call) for call in calls]


def test_a_frame_is_six_launches_and_nothing_else(asked):
    assert kernels_of(asked["preprocess"]) == ["preprocess"]
    assert kernels_of(asked["decode"]) == kernels_of(asked["again"]) == list(DECODE)


def test_a_hundred_frames_after_the_first_allocate_nothing(asked):
    assert len(asked["hundred"]) == 100 * (1 + len(DECODE))
    assert not {"allocate", "free", "make a stream", "wait for the device"} & set(asked["hundred"])


def test_a_closed_workspace_has_given_everything_back(asked):
    assert asked["held"] > 0
    assert asked["close"] == ["free"]
    assert asked["left"] == 0


def test_nothing_is_asked_for_without_a_current_context(asked):
    assert asked["refused"] == 0


def test_the_next_process_compiles_only_what_is_missing_or_damaged(asked, folder):
    assert asked["compiled"] == 1 + len(DECODE)
    kept = sorted((folder / "cache" / "higherpose" / "kernels").iterdir())
    assert len(kept) == 1 + len(DECODE)
    kept[0].unlink()
    kept[1].write_bytes(kept[1].read_bytes()[:-100])
    again = run_kernels(folder)
    assert again["compiled"] == 2
    assert kernels_of(again["decode"]) == kernels_of(again["again"]) == list(DECODE)
    assert [again[name] for name in ("held", "left", "refused")] == [
        asked[name] for name in ("held", "left", "refused")
    ]
