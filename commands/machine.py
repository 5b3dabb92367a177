"""Describes the machine of a measurement for the reader of a benchmark: processor, GPU, driver and versions."""

from __future__ import annotations

import platform
from importlib import metadata
from pathlib import Path

from engine.gpu import find_gpu
from engine.onnx_runner import usable_cores

PACKAGES = ("openvino", "onnxruntime", "tensorrt", "tensorrt_rtx", "torch", "numba", "numpy", "opencv-python", "av")


def describe_machine() -> dict[str, str]:
    """Label -> text, in display order."""
    gpu, why = find_gpu()
    return {
        "CPU": f"{_processor()}, {usable_cores()} cores usable",
        "GPU": str(gpu) if gpu is not None else why,
        "driver": _driver() or "none",
        "system": f"{platform.platform(terse=True)}, Python {platform.python_version()}",
        "versions": ", ".join(f"{name} {version}" for name in PACKAGES if (version := _version(name))),
    }


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _driver() -> str | None:
    """The version line of the NVIDIA kernel module, on Linux."""
    try:
        return Path("/proc/driver/nvidia/version").read_text().splitlines()[0].partition(":")[2].strip()
    except (OSError, IndexError):
        return None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
