"""Compiled kernels as data: nothing of a kernel of this project is lost, and what is no such data is refused."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("cuda.core", reason="numba-cuda is not installed")
from kernels.cuda._cuda import SIMULATED

if SIMULATED:
    pytest.skip("the simulator compiles nothing", allow_module_level=True)

from numba.cuda import types
from numba.cuda.codegen import CUDACodeLibrary
from numba.cuda.dispatcher import _Kernel

from kernels.cuda._cuda import kernel_of
from kernels.cuda.machine_code import to_data

CAPABILITY = (9, 0)
TYPES = (types.float32[::1], types.int32)


def scale(values, factor):
    values[0] = factor * values[0]


@pytest.fixture
def compiled(monkeypatch):
    """Makes kernels for a GPU that need not be here, and links them."""
    device = SimpleNamespace(compute_capability=CAPABILITY)
    monkeypatch.setattr("numba.cuda.dispatcher.get_current_device", lambda: device)
    monkeypatch.setattr(CUDACodeLibrary, "_ensure_cc", lambda self, cc: cc or CAPABILITY)

    def make(**options):
        kernel = _Kernel(scale, TYPES, **options)
        kernel._codelibrary.get_cubin()
        return kernel

    return make


def test_a_kernel_is_the_same_after_json(compiled):
    kernel = compiled()
    again = kernel_of(json.loads(json.dumps(to_data(kernel))), TYPES)
    assert again.entry_name == kernel.entry_name
    assert again.argument_types == TYPES and again.signature == kernel.signature
    assert again._codelibrary.get_cubin().code == kernel._codelibrary.get_cubin().code
    ours, theirs = vars(again), vars(_Kernel._rebuild(**kernel._reduce_states()))  # what Numba's own cache would give
    assert ours.keys() == theirs.keys()
    differ = {name for name in ours if ours[name] is not theirs[name] and ours[name] != theirs[name]}
    assert differ <= {"_codelibrary", "call_helper"}  # the latter is for debugging


def test_a_kernel_that_is_more_than_machine_code_is_refused(compiled):
    with pytest.raises(ValueError, match="debug information"):
        to_data(compiled(lineinfo=True))
    kernel = compiled()
    kernel._codelibrary.referenced_objects = {1: np.zeros(3)}
    with pytest.raises(ValueError, match="it has objects"):
        to_data(kernel)
    kernel = compiled()
    kernel._codelibrary._cubin_cache.clear()
    with pytest.raises(ValueError, match="not linked"):
        to_data(kernel)


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"entry": 3, "cubins": []},
        {"entry": "scale"},
        {"entry": "scale", "cubins": [{"capability": [9, 0]}]},
        {"entry": "scale", "cubins": [{"capability": [9, 0], "code": "no base64"}]},
    ],
)
def test_other_data_is_refused(data):
    with pytest.raises((KeyError, TypeError, ValueError)):
        kernel_of(data, TYPES)
