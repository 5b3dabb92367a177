"""Find NVIDIA GPUs by calling the driver through ctypes, so that no package is needed."""

from __future__ import annotations

import ctypes
import sys
from dataclasses import dataclass
from typing import Any

_SUCCESS = 0
_COMPUTE_CAPABILITY = (75, 76)  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, _MINOR


@dataclass(frozen=True)
class Gpu:
    """A GPU that the driver lists. driver: the highest CUDA version it supports, (major, minor)."""

    name: str
    compute_capability: tuple[int, int]
    memory_bytes: int
    driver: tuple[int, int]

    @property
    def capability(self) -> str:
        """The compute capability as text, such as "8.6"."""
        return ".".join(map(str, self.compute_capability))

    def __str__(self) -> str:
        cuda = ".".join(map(str, self.driver))
        return (
            f"{self.name} (compute capability {self.capability}, {self.memory_bytes >> 20} MiB, driver for CUDA {cuda})"
        )


def find_gpu(index: int = 0, libcuda: Any = None) -> tuple[Gpu | None, str]:
    """A GPU or None, and a text that describes the GPU or says why there is none.

    index: position among the GPUs that the driver lists; CUDA_VISIBLE_DEVICES selects and orders them.
    libcuda: a loaded driver library; by default the system's.
    """
    try:
        cuda = libcuda or ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return None, "no NVIDIA driver is installed (libcuda not found)"
    count = ctypes.c_int()
    if (status := cuda.cuInit(0)) != _SUCCESS:
        return None, f"the NVIDIA driver does not start (cuInit gave {status})"
    if cuda.cuDeviceGetCount(ctypes.byref(count)) != _SUCCESS or count.value == 0:
        return None, "the NVIDIA driver shows no GPU (is CUDA_VISIBLE_DEVICES set?)"
    if not 0 <= index < count.value:
        return None, f"GPU {index} was asked for, {count.value} found; expected 0 to {count.value - 1}"
    device, version = ctypes.c_int(), ctypes.c_int()
    name, memory = ctypes.create_string_buffer(256), ctypes.c_size_t()
    capability = [ctypes.c_int(), ctypes.c_int()]
    calls = [
        cuda.cuDeviceGet(ctypes.byref(device), index),
        cuda.cuDeviceGetName(name, len(name), device),
        cuda.cuDeviceTotalMem_v2(ctypes.byref(memory), device),
        cuda.cuDriverGetVersion(ctypes.byref(version)),
        *(
            cuda.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
            for value, attribute in zip(capability, _COMPUTE_CAPABILITY, strict=True)
        ),
    ]
    if any(status != _SUCCESS for status in calls):
        return None, f"the NVIDIA driver does not describe its GPU (statuses {calls})"
    gpu = Gpu(
        name.value.decode(errors="replace"),
        (capability[0].value, capability[1].value),
        memory.value,
        (version.value // 1000, version.value % 1000 // 10),
    )
    return gpu, str(gpu)


def count_gpus(libcuda: Any = None) -> int:
    """Number of GPUs that the driver lists for this process; 0 without a driver. libcuda: as in `find_gpu`."""
    try:
        cuda = libcuda or ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int()
    if cuda.cuInit(0) != _SUCCESS or cuda.cuDeviceGetCount(ctypes.byref(count)) != _SUCCESS:
        return 0
    return count.value
