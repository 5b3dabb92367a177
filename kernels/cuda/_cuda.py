"""The one file that imports numba.cuda: the compiler, exact float32 arithmetic, and what the simulator lacks of them.

No multiplication of a kernel may be fused into a following addition where that would change the result: `mul` is
rounded on its own, so that kernels give the bits of NumPy and of `kernels.cpu`. `sqrt`, `div` and `rint` round as IEEE
754 says, on the device and in the simulator.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numba import cuda
from numba.core import config

__all__ = [
    "SIMULATED",
    "as_device_array",
    "as_stream",
    "bits_float",
    "cuda",
    "device",
    "div",
    "float_bits",
    "floor",
    "free_dropped",
    "limits",
    "mul",
    "rint",
    "sqrt",
    "synchronize",
    "zeros",
]

logger = logging.getLogger(__name__)

Function = TypeVar("Function", bound=Callable[..., Any])

SIMULATED = bool(config.ENABLE_CUDASIM)

# One block an image is what `group` needs; Numba would call it under-utilisation.
warnings.filterwarnings("ignore", message=r"Grid size \d+ will likely result in GPU under-utilization")

if SIMULATED:

    def device(function: Function) -> Function:
        """Compile arithmetic for use in kernels. Plain Python in the simulator: cheap, but it must not name `cuda`."""
        return function

    def mul(a: Any, b: Any) -> Any:
        return a * b

    def div(a: Any, b: Any) -> Any:
        return a / b

    def float_bits(value: Any) -> int:
        """The bits of a float32 as a signed 32-bit integer."""
        return int(np.float32(value).view(np.int32))

    def bits_float(bits: Any) -> Any:
        """The float32 of such bits."""
        return np.int32(bits).view(np.float32)

    rint, sqrt, floor = np.rint, np.sqrt, np.floor
else:
    from numba.cuda import libdevice

    device = cuda.jit(device=True)
    mul, div, sqrt = libdevice.fmul_rn, libdevice.fdiv_rn, libdevice.fsqrt_rn
    rint, floor = libdevice.rintf, libdevice.floorf
    float_bits, bits_float = libdevice.float_as_int, libdevice.int_as_float


def as_device_array(array: Any, name: str) -> Any:
    """A Numba device array over `array` (device memory of any library), without a copy and without waiting.

    Raises TypeError for host memory and ValueError where it is not C-contiguous. The simulator takes NumPy arrays.
    """
    if hasattr(array, "copy_to_host"):  # Numba's own, or the simulator's
        found = array
    elif SIMULATED and isinstance(array, np.ndarray):
        found = cuda.to_device(array)
    elif hasattr(array, "__cuda_array_interface__"):
        found = cuda.as_cuda_array(array, sync=False)
    else:
        raise TypeError(
            f"{name} is {type(array).__name__}; expected an array in device memory (__cuda_array_interface__)"
        )
    if not found.is_c_contiguous():
        raise ValueError(f"{name} is not C-contiguous; pass a contiguous copy")
    return found


def as_stream(stream: Any) -> Any:
    """Numba's stream of a handle (int), or the stream itself; 0 is the default stream."""
    if isinstance(stream, int) and stream:
        return cuda.external_stream(stream)
    return stream


def zeros(shape: tuple[int, ...], dtype: Any) -> Any:
    """A zeroed device array. It copies from the host, hence waits: at set-up only."""
    return cuda.to_device(np.zeros(shape, dtype))


def free_dropped() -> None:
    """Free at once the device memory of arrays that are gone: Numba puts it off, maybe until no context is current."""
    if SIMULATED:
        return
    from numba.cuda.cudadrv.driver import CudaAPIError

    try:
        cuda.current_context().memory_manager.deallocations.clear()
    except CudaAPIError as error:  # the device has failed: told where it did, and its memory goes with the process
        logger.warning("the GPU could not free memory: %s", error)


def synchronize() -> None:
    """Wait for all of the device's work: at set-up only."""
    cuda.synchronize()


def limits() -> dict[str, int]:
    """What shapes and bounds a launch on the current device; shared memory and threads are a block's."""
    if SIMULATED:
        return {
            "multiprocessors": 3,
            "threads_resident": 16,
            "shared_bytes": 48 * 1024,
            "threads": 1024,
            "grid_y": 65535,
            "grid_z": 65535,
        }
    current = cuda.get_current_device()
    return {
        "multiprocessors": current.MULTIPROCESSOR_COUNT,
        "threads_resident": current.MAX_THREADS_PER_MULTIPROCESSOR,
        "shared_bytes": current.MAX_SHARED_MEMORY_PER_BLOCK,
        "threads": current.MAX_THREADS_PER_BLOCK,
        "grid_y": current.MAX_GRID_DIM_Y,
        "grid_z": current.MAX_GRID_DIM_Z,
    }
