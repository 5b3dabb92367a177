"""engine/gpu.py against a fake driver library: every answer is one line that says what is so."""

from __future__ import annotations

import ctypes

import pytest

from engine.gpu import Gpu, count_gpus, find_gpu


class FakeLibcuda:
    """The six driver calls that find_gpu makes, writing through the pointers as libcuda does."""

    def __init__(self, *, init=0, gpus=1, describe=0):
        self.init, self.gpus, self.describe = init, gpus, describe

    def cuInit(self, flags):
        return self.init

    def cuDeviceGetCount(self, count):
        count._obj.value = self.gpus
        return 0

    def cuDeviceGet(self, device, index):
        device._obj.value = index
        return self.describe

    def cuDeviceGetName(self, name, size, device):
        name.value = b"NVIDIA Test 5000"
        return 0

    def cuDeviceTotalMem_v2(self, memory, device):
        memory._obj.value = 6 << 30
        return 0

    def cuDriverGetVersion(self, version):
        version._obj.value = 12080
        return 0

    def cuDeviceGetAttribute(self, value, attribute, device):
        value._obj.value = {75: 8, 76: 9}[attribute]
        return 0


def test_a_gpu_is_described():
    gpu, words = find_gpu(FakeLibcuda())
    assert gpu == Gpu("NVIDIA Test 5000", (8, 9), 6 << 30, (12, 8))
    assert words == "NVIDIA Test 5000 (compute capability 8.9, 6144 MiB, driver for CUDA 12.8)"


@pytest.mark.parametrize(
    ("driver", "reason"),
    [
        (FakeLibcuda(init=999), "does not start (cuInit gave 999)"),
        (FakeLibcuda(gpus=0), "shows no GPU"),
        (FakeLibcuda(describe=1), "does not describe its GPU"),
    ],
)
def test_no_gpu_has_a_reason(driver, reason):
    gpu, words = find_gpu(driver)
    assert gpu is None
    assert reason in words


@pytest.mark.parametrize(
    ("driver", "count"), [(FakeLibcuda(gpus=3), 3), (FakeLibcuda(gpus=0), 0), (FakeLibcuda(init=999), 0)]
)
def test_gpus_are_counted(driver, count):
    assert count_gpus(driver) == count


def test_no_driver_is_a_reason_too(monkeypatch):
    def missing(name):
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert find_gpu() == (None, "no NVIDIA driver is installed (libcuda not found)")
    assert count_gpus() == 0
