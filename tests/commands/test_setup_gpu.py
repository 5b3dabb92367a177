"""commands/setup_gpu.py: what it would install, and how it says no. Nothing is installed here."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from commands import setup_gpu
from engine.gpu import Gpu


def gpu(capability=(8, 9), driver=(13, 0)):
    return Gpu("NVIDIA Test 5000", capability, 8 << 30, driver)


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    """The layout of NVIDIA's wheels under site-packages/nvidia/cu13."""
    for name in ("cuda.h", "cudaProfiler.h"):
        path = tmp_path / "cu13" / "include" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "links").mkdir()
    return tmp_path / "cu13"


@pytest.mark.parametrize(
    ("capability", "package"),
    [((7, 5), "tensorrt-rtx"), ((8, 9), "tensorrt-rtx"), ((12, 0), "tensorrt-rtx"), ((9, 0), "tensorrt")],
)
def test_the_tensorrt_that_fits_the_gpu_is_chosen(capability, package):
    assert setup_gpu.tensorrt_package(gpu(capability)) == package


def test_pycuda_is_built_against_the_wheels_and_the_drivers_library(wheels, tmp_path):
    links, driver = tmp_path / "links", tmp_path / "libcuda.so.1"
    environment = setup_gpu.build_environment(wheels, links, driver, {"CPATH": "/own", "HOME": "/home/me"})
    assert environment["CPATH"] == f"{wheels}/include:/own"
    assert environment["LIBRARY_PATH"] == str(links)
    assert environment["HOME"] == "/home/me"
    assert (links / "libcuda.so").readlink() == driver


@pytest.mark.parametrize(
    ("lost", "wheel"), [("cuda.h", "nvidia-cuda-runtime"), ("cudaProfiler.h", "nvidia-cuda-profiler-api")]
)
def test_a_wheel_without_its_header_is_named(wheels, tmp_path, lost, wheel):
    (wheels / "include" / lost).unlink()
    with pytest.raises(FileNotFoundError, match=rf"{lost} is missing; expected it after installing {wheel}"):
        setup_gpu.build_environment(wheels, tmp_path / "links", tmp_path / "libcuda.so.1", {})


@pytest.mark.parametrize(
    ("found", "status", "words"),
    [
        ((None, "no NVIDIA driver is installed"), 2, "no NVIDIA driver is installed; expected an NVIDIA GPU"),
        ((gpu(driver=(12, 4)), "an old driver"), 2, "expected a driver for CUDA 13.0 or newer"),
    ],
)
def test_no_gpu_or_an_old_driver_is_one_line_and_status_two(monkeypatch, capsys, found, status, words):
    monkeypatch.setattr(setup_gpu, "find_gpu", lambda: found)
    monkeypatch.setattr(sys, "argv", ["setup_gpu"])
    assert setup_gpu.main() == status
    line = capsys.readouterr().err
    assert words in line
    assert line.count("\n") == 1


def test_a_dry_run_says_what_it_would_install(monkeypatch, capsys):
    monkeypatch.setattr(setup_gpu, "find_gpu", lambda: (gpu(), "a GPU"))
    monkeypatch.setattr(setup_gpu, "pip_install", lambda *a, **k: pytest.fail("installed something"))
    monkeypatch.setattr(sys, "argv", ["setup_gpu", "--dry-run"])
    assert setup_gpu.main() == 0
    assert "installing pycuda, numba-cuda and tensorrt-rtx" in capsys.readouterr().out


def test_an_installation_that_fails_gives_status_one(monkeypatch, capsys):
    monkeypatch.setattr(setup_gpu, "find_gpu", lambda: (gpu(), "a GPU"))
    monkeypatch.setattr(setup_gpu, "install_pycuda", lambda: (_ for _ in ()).throw(OSError("disk full")))
    monkeypatch.setattr(sys, "argv", ["setup_gpu"])
    assert setup_gpu.main() == 1
    assert capsys.readouterr().err.startswith("make gpu: disk full")
