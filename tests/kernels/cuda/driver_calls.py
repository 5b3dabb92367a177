"""Print the driver calls of the kernels as JSON. LD_LIBRARY_PATH must name the folder of the built host_driver.c."""

from __future__ import annotations

import ctypes
import gc
import json
from typing import Any

import numpy as np
from numba import cuda
from numba.cuda import dispatcher

from kernels.cuda import Workspace, decode, preprocess
from kernels.options import DecodeOptions

driver = ctypes.CDLL("libcuda.so.1")
count, live, refused = (ctypes.c_int.in_dll(driver, name) for name in ("count", "live", "refused"))
calls = (ctypes.c_char_p * 4096).in_dll(driver, "calls")


class Foreign:
    """Device memory of another library, such as engine.device's."""

    def __init__(self, array: Any) -> None:
        self.array = array
        self.__cuda_array_interface__ = {**array.__cuda_array_interface__, "stream": None}


def asked_by(work: Any) -> list[str]:
    """The calls `work` makes, launches by their kernel's mangled name."""
    count.value = 0
    work()
    return [(calls[i] or b"").decode() for i in range(count.value)]


def foreign(shape: tuple[int, ...], dtype: Any) -> Foreign:
    return Foreign(cuda.to_device(np.zeros(shape, dtype)))


def count_compilations() -> list[int]:
    """The number of kernels compiled so far, in a list of one."""
    compiled, compile_kernel = [0], dispatcher._Kernel.__init__

    def counted(*arguments: Any, **options: Any) -> None:
        compiled[0] += 1
        compile_kernel(*arguments, **options)

    dispatcher._Kernel.__init__ = counted
    return compiled


def main() -> None:
    compiled = count_compilations()
    context = ctypes.c_void_p()
    driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0)
    driver.cuCtxPushCurrent(context)  # as engine.device does: numba finds it and pushes none of its own
    frame, image = foreign((96, 128, 3), np.uint8), foreign((2, 3, 64, 128), np.float16)
    heatmaps, tags = foreign((2, 17, 32, 64), np.float32), foreign((2, 17, 16, 32), np.float32)
    stream = cuda.stream()
    handle = int(stream.handle)

    def warp() -> None:
        geometry: dict[str, Any] = {"scale": 0.5, "center": (64.0, 48.0), "mean": (0.5,) * 3, "std": (0.5,) * 3}
        preprocess(frame, image, mirror=True, stream=handle, **geometry)

    def hundred_frames() -> None:
        for _ in range(100):
            warp()
            decode(heatmaps, tags, workspace=workspace, stream=handle)

    warp()
    gc.collect()
    before = live.value
    workspace = Workspace((2, 17, 32, 64), DecodeOptions(duplicate_oks=0.7))
    found = {
        "preprocess": asked_by(warp),
        "decode": asked_by(lambda: decode(heatmaps, tags, workspace=workspace, stream=handle)),
        "again": asked_by(lambda: decode(heatmaps, tags, workspace=workspace, stream=handle)),
        "hundred": asked_by(hundred_frames),
        "held": live.value - before,
        "close": sorted(set(asked_by(workspace.close))),
    }
    driver.cuCtxPopCurrent(ctypes.byref(context))
    gc.collect()
    print(json.dumps({**found, "left": live.value - before, "refused": refused.value, "compiled": compiled[0]}))


if __name__ == "__main__":
    main()
