"""commands/setup_gpu.py: what it would install, and how it says no. Nothing is installed here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from commands import setup_gpu
from commands.setup_gpu import CUDA_12, CUDA_13
from engine.gpu import Gpu


def gpu(capability=(8, 9), driver=(13, 0)):
    return Gpu("NVIDIA Test 5000", capability, 8 << 30, driver)


# What the wheels of NVIDIA's hold, below site-packages.
LAYOUTS = {
    CUDA_13: ["nvidia/cu13/include/cuda.h", "nvidia/cu13/include/cudaProfiler.h"],
    CUDA_12: ["nvidia/cuda_runtime/include/cuda.h", "nvidia/cuda_profiler_api/include/cudaProfiler.h"],
}


@pytest.fixture(params=[CUDA_13, CUDA_12], ids=["13", "12"])
def cuda(request):
    return request.param


@pytest.fixture
def packages(tmp_path: Path, cuda) -> Path:
    """site-packages with the wheels of a CUDA version."""
    for name in LAYOUTS[cuda]:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "links").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("capability", "package"),
    [((7, 5), "tensorrt-rtx"), ((8, 9), "tensorrt-rtx"), ((12, 0), "tensorrt-rtx"), ((9, 0), "tensorrt")],
)
def test_the_tensorrt_that_fits_the_gpu_is_chosen(capability, package):
    assert setup_gpu.tensorrt_package(gpu(capability)) == package


def test_pycuda_is_built_against_the_wheels_and_the_drivers_library(cuda, packages, tmp_path):
    links, driver = tmp_path / "links", tmp_path / "libcuda.so.1"
    environment = setup_gpu.build_environment(cuda, packages, links, driver, {"CPATH": "/own", "HOME": "/home/me"})
    folders = dict.fromkeys(str((packages / name).parent) for name in LAYOUTS[cuda])
    assert environment["CPATH"] == ":".join([*folders, "/own"])
    assert environment["LIBRARY_PATH"] == str(links)
    assert environment["HOME"] == "/home/me"
    assert (links / "libcuda.so").readlink() == driver


@pytest.mark.parametrize("lost", [0, 1])
def test_a_wheel_without_its_header_is_named(cuda, packages, tmp_path, lost):
    (packages / LAYOUTS[cuda][lost]).unlink()
    header = cuda.headers[lost]
    with pytest.raises(FileNotFoundError, match=rf"{header.name} is missing; expected it after installing nvidia-cuda"):
        setup_gpu.build_environment(cuda, packages, tmp_path / "links", tmp_path / "libcuda.so.1", {})


@pytest.mark.parametrize(
    ("driver", "cuda"),
    [((13, 5), CUDA_13), ((13, 0), CUDA_13), ((12, 9), CUDA_12), ((12, 0), CUDA_12), ((11, 8), None)],
)
def test_the_driver_decides_between_cuda_12_and_13(driver, cuda):
    assert setup_gpu.cuda_for(driver) is cuda


def test_what_a_cuda_version_has_otherwise_replaces_what_all_have(cuda):
    lines = setup_gpu.merged_constraints(cuda).splitlines()
    pins = [line.partition("==")[0].lower() for line in lines if not line.startswith("#")]
    assert len(pins) == len(set(pins))
    assert "pycuda" in pins
    assert "numpy" in pins
    major = cuda.oldest[0]
    assert [line for line in lines if line.startswith(f"cuda-bindings=={major}.")]
    assert any(line.startswith(f"tensorrt{cuda.suffix}==") for line in lines)


@pytest.mark.parametrize(
    ("driver", "expected"),
    [
        ((13, 0), ["[gpu,export]", "tensorrt-rtx", None]),
        ((12, 8), ["[gpu-cu12,export]", "tensorrt-rtx-cu12", "https://download.pytorch.org/whl/cu126"]),
    ],
)
def test_everything_is_installed_for_the_drivers_cuda(driver, expected, monkeypatch):
    extras, tensorrt, index = expected
    installed = []
    monkeypatch.setattr(setup_gpu, "find_gpu", lambda index: (gpu(driver=driver), "a GPU"))
    monkeypatch.setattr(setup_gpu, "driver_library", lambda: Path("libcuda.so.1"))
    monkeypatch.setattr(setup_gpu, "build_environment", lambda *_: {"CPATH": "x"})
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr(setup_gpu, "pip_install", lambda cuda, *words, **_: installed.append(words))
    monkeypatch.setattr(sys, "argv", ["setup_gpu"])
    assert setup_gpu.main() == 0
    assert installed[1] == setup_gpu.PYCUDA
    assert installed[-1] == (f"{setup_gpu.ROOT}{extras}", tensorrt)
    assert [words[2] for words in installed if words[0] == "torch"] == ([] if index is None else [index])


def test_an_index_without_torch_for_the_driver_is_said_and_the_rest_goes_on(monkeypatch, capsys):
    def fails(*_, **__):
        raise subprocess.CalledProcessError(1, "pip")

    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr(setup_gpu, "pip_install", fails)
    setup_gpu.install_torch(CUDA_12)
    assert "--engine torch will not run here" in capsys.readouterr().err


def test_a_jetson_is_told_that_pips_tensorrt_does_not_support_it(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(setup_gpu, "JETSON", tmp_path)
    monkeypatch.setattr(sys, "argv", ["setup_gpu"])
    assert setup_gpu.main() == 2
    line = capsys.readouterr().err
    assert "this is a Jetson: TensorRT comes with its JetPack, and pip's does not support it; expected" in line
    assert line.count("\n") == 1


@pytest.mark.parametrize(
    ("found", "status", "words"),
    [
        ((None, "no NVIDIA driver is installed"), 2, "no NVIDIA driver is installed; expected an NVIDIA GPU"),
        (
            (gpu(driver=(11, 8)), "an old driver"),
            2,
            "an old driver; expected an NVIDIA GPU in a PC or server and a driver for CUDA 12.0 or newer",
        ),
    ],
)
def test_no_gpu_or_an_old_driver_is_one_line_and_status_two(monkeypatch, capsys, found, status, words):
    monkeypatch.setattr(setup_gpu, "find_gpu", lambda index: found)
    monkeypatch.setattr(sys, "argv", ["setup_gpu"])
    assert setup_gpu.main() == status
    line = capsys.readouterr().err
    assert words in line
    assert "a driver for CUDA 12.0 or newer" in line
    assert line.count("\n") == 1


def test_a_dry_run_says_what_it_would_install(monkeypatch, capsys):
    monkeypatch.setattr(setup_gpu, "find_gpu", lambda index: (gpu(), "a GPU"))
    monkeypatch.setattr(setup_gpu, "pip_install", lambda *a, **k: pytest.fail("installed something"))
    monkeypatch.setattr(sys, "argv", ["setup_gpu", "--dry-run"])
    assert setup_gpu.main() == 0
    assert "installing pycuda, numba-cuda for CUDA 13 and tensorrt-rtx" in capsys.readouterr().out


def test_an_installation_that_fails_gives_status_one(monkeypatch, capsys):
    monkeypatch.setattr(setup_gpu, "find_gpu", lambda index: (gpu(), "a GPU"))
    monkeypatch.setattr(setup_gpu, "install_pycuda", lambda cuda: (_ for _ in ()).throw(OSError("disk full")))
    monkeypatch.setattr(sys, "argv", ["setup_gpu"])
    assert setup_gpu.main() == 1
    assert capsys.readouterr().err.startswith("make gpu: disk full")
