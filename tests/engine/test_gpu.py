"""engine/gpu.py against a fake driver library: every answer is one line that says what is so; and on a GPU."""

from __future__ import annotations

import ctypes

import pytest

from engine import gpu as gpu_module
from engine.gpu import Gpu, count_gpus, find_gpu


class FakeLibcuda:
    """The driver calls that find_gpu makes, writing through the pointers as libcuda does; two GPUs that differ."""

    def __init__(self, *, init=0, gpus=1, describe=0):
        self.init, self.gpus, self.describe = init, gpus, describe

    def cuInit(self, flags):
        return self.init

    def cuDeviceGetCount(self, count):
        count._obj.value = self.gpus
        return 0

    def cuDeviceGet(self, device, index):
        device._obj.value = 100 + index  # a handle, not the index
        return self.describe

    def cuDeviceGetName(self, name, size, device):
        name.value = {100: b"NVIDIA Test 5000", 101: b"NVIDIA Test 9000"}[device.value]
        return 0

    def cuDeviceTotalMem_v2(self, memory, device):
        memory._obj.value = 6 << 30
        return 0

    def cuDriverGetVersion(self, version):
        version._obj.value = 12080
        return 0

    def cuDeviceGetAttribute(self, value, attribute, device):
        major, minor = {100: (8, 9), 101: (12, 0)}[device.value]
        value._obj.value = {75: major, 76: minor}[attribute]
        return 0


def test_a_gpu_is_described():
    gpu, words = find_gpu(libcuda=FakeLibcuda())
    assert gpu == Gpu("NVIDIA Test 5000", (8, 9), 6 << 30, (12, 8))
    assert words == "NVIDIA Test 5000 (compute capability 8.9, 6144 MiB, driver for CUDA 12.8)"


def test_another_gpu_is_described_by_its_index():
    gpu, _ = find_gpu(1, FakeLibcuda(gpus=2))
    assert gpu is not None
    assert (gpu.name, gpu.compute_capability, gpu.capability) == ("NVIDIA Test 9000", (12, 0), "12.0")


@pytest.mark.parametrize("index", [-1, 2])
def test_a_gpu_that_is_not_there_is_named(index):
    assert find_gpu(index, FakeLibcuda(gpus=2)) == (None, f"GPU {index} was asked for, 2 found; expected 0 to 1")


def test_the_numbers_asked_for_are_those_of_the_driver():
    real = pytest.importorskip("cuda.bindings.driver", reason="cuda.bindings comes with the test extra on Linux")
    names = real.CUdevice_attribute
    wanted = names.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, names.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR
    assert tuple(map(int, wanted)) == gpu_module._COMPUTE_CAPABILITY


@pytest.mark.gpu
def test_on_a_gpu_it_says_what_pycuda_says():
    import pycuda.driver as cuda

    cuda.init()
    for index in range(cuda.Device.count()):
        gpu, device = find_gpu(index)[0], cuda.Device(index)
        assert gpu == Gpu(
            device.name(), device.compute_capability(), device.total_memory(),
            (cuda.get_driver_version() // 1000, cuda.get_driver_version() % 1000 // 10),
        )  # fmt: skip


@pytest.mark.parametrize(
    ("driver", "reason"),
    [
        (FakeLibcuda(init=999), "does not start (cuInit gave 999)"),
        (FakeLibcuda(gpus=0), "shows no GPU"),
        (FakeLibcuda(describe=1), "does not describe its GPU"),
    ],
)
def test_no_gpu_has_a_reason(driver, reason):
    gpu, words = find_gpu(libcuda=driver)
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
