"""The parts of `_cuda.py`, the one file that imports numba.cuda, that can be checked without a GPU."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from kernels.cuda import _cuda
from kernels.cuda.decode import Workspace

FOLDER = Path(_cuda.__file__).parent


def test_only_one_file_imports_numba_cuda():
    for source in FOLDER.glob("*.py"):
        if source.name != "_cuda.py":
            assert not re.search(r"^\s*(from|import) numba", source.read_text(), re.MULTILINE), source.name


@pytest.mark.parametrize("colour", ["", "\x1b[1m", "\x1b[1m\x1b[1m"])
def test_numbas_warning_of_small_grids_is_recognised_with_and_without_colour(colour):
    assert re.match(_cuda.LOW_OCCUPANCY, f"{colour}Grid size 17 will likely result in GPU under-utilization due to low")


def test_limits_ask_the_driver_for_attributes_that_it_has(monkeypatch):
    driver = pytest.importorskip("cuda.bindings.driver")

    class Device:
        def __getattr__(self, name):
            return int(getattr(driver.CUdevice_attribute, f"CU_DEVICE_ATTRIBUTE_{name}"))

    monkeypatch.setattr(_cuda.cuda, "get_current_device", Device)
    limits = _cuda.device_limits()
    assert limits["multiprocessors"] == driver.CUdevice_attribute.CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT
    assert all(limits.values())


def test_host_memory_is_refused():
    with pytest.raises(TypeError, match="heatmaps is ndarray; expected an array in device memory"):
        _cuda.as_device_array(np.zeros(3, np.float32), "heatmaps")


def test_a_stream_of_zero_is_the_default_one():
    assert _cuda.as_stream(0) == 0
    stream = object()
    assert _cuda.as_stream(stream) is stream


@pytest.mark.parametrize("shape", [(17, 8, 8), (3, 17, 8, 8), (1, 17, 7, 8), (1, 0, 8, 8)])
def test_a_shape_that_no_network_gives_is_named_before_the_device_is_asked(shape):
    with pytest.raises(ValueError, match=r"expected \(T, K, h, w\)"):
        Workspace(shape)


def test_maps_of_another_type_are_named():
    with pytest.raises(ValueError, match="expected float16 or float32"):
        Workspace((1, 17, 8, 8), dtype=np.float64)


def test_memory_that_a_failed_device_cannot_free_is_told_and_stops_nothing(monkeypatch, caplog):
    from numba.cuda.cudadrv.driver import CudaAPIError

    def failing():
        raise CudaAPIError(700, "an illegal address")

    context = SimpleNamespace(memory_manager=SimpleNamespace(deallocations=SimpleNamespace(clear=failing)))
    monkeypatch.setattr(_cuda.cuda, "current_context", lambda: context)
    with caplog.at_level(logging.WARNING):
        _cuda.free_dropped()
    assert "could not free memory" in caplog.text
