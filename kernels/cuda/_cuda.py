"""The one file that imports numba.cuda: the compiler, exact float32 arithmetic, warps, and what the simulator lacks.

No multiplication of a kernel may be fused into a following addition where that would change the result: `mul` is
rounded on its own, so that kernels give the bits of NumPy and of `kernels.cpu`. `sqrt`, `div` and `rint` round as IEEE
754 says, on the device and in the simulator. `larger` and `smaller` take the number where the other is NaN.

`add32`, `sub32`, `mul32`, `mad` and `masked` compute with 32-bit integers. With `+` and `*` Numba widens to 64 bits, of
which each operation is several on a GPU.

`warp_…` and `shuffle` are called by every lane of a warp, and the simulator needs every thread of the block to call
them: a warp there is 32 threads, or the whole of a smaller block. Only `warp_barrier` makes visible to the other lanes
what a lane wrote to memory.
"""

from __future__ import annotations

import logging
import platform
import threading
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numba import cuda
from numba.core import config
from numpy.typing import DTypeLike

from kernels.cuda.kept import KernelCache, compiler_versions

__all__ = [
    "SIMULATED",
    "WARP",
    "add32",
    "as_device_array",
    "as_stream",
    "bits_float",
    "cuda",
    "device",
    "device_limits",
    "div",
    "float_bits",
    "floor",
    "free_dropped",
    "inlined",
    "int_max",
    "int_min",
    "kernel",
    "larger",
    "mad",
    "masked",
    "mul",
    "mul32",
    "rint",
    "rounded",
    "set_before",
    "shuffle",
    "smaller",
    "split_index",
    "sqrt",
    "sub32",
    "synchronize",
    "u32",
    "warp_ballot",
    "warp_barrier",
    "warp_max",
    "warp_max_key",
    "warp_min_key",
    "zeros",
]

logger = logging.getLogger(__name__)

# Numba's objects have no type stubs, so mypy checks none of them.
Value = Any  # a number in a kernel
DeviceArray = Any  # an array in device memory
Kernel = Any  # a compiled kernel or device function
Stream = Any  # a Numba stream, or the number of a CUDA stream

Function = TypeVar("Function", bound=Callable[..., Value])

SIMULATED = bool(config.ENABLE_CUDASIM)
WARP = 32
ALL_LANES = 0xFFFFFFFF
u32 = np.uint32  # of subscripts: Numba looks whether a signed one is negative, in 64 bits

# One block an image is what `group` needs; Numba would call it under-utilisation, on a terminal in colour.
LOW_OCCUPANCY = r"(\x1b\[\d*m)*Grid size \d+ will likely result in GPU under-utilization"
warnings.filterwarnings("ignore", message=LOW_OCCUPANCY)

if SIMULATED:

    def device(function: Function) -> Function:
        """Compile arithmetic for use in kernels. Plain Python in the simulator: cheap, but it must not name `cuda`."""
        return function

    inlined = device
    kernel = cuda.jit

    def mul(a: Value, b: Value) -> Value:
        return a * b

    def div(a: Value, b: Value) -> Value:
        return a / b

    def float_bits(value: Value) -> int:
        """The bits of a float32 as a signed 32-bit integer."""
        return int(np.float32(value).view(np.int32))

    def bits_float(bits: Value) -> Value:
        """The float32 of such bits."""
        return np.int32(bits).view(np.float32)

    def rounded(value: Value) -> Value:
        """rint(value) as an integer; not for NaN."""
        return int(np.rint(value))

    def _of_warp(value: Value) -> list[Value]:
        """The value of every lane, as a list; the simulator's warp."""
        thread: Value = threading.current_thread()
        thread.turn = 1 - getattr(thread, "turn", 0)  # two in turn: no thread overwrites what others still read
        given = thread._manager.__dict__.setdefault("given", ({}, {}))[thread.turn]
        given[thread.thread_id] = value
        thread.syncthreads()
        first = thread.thread_id // WARP * WARP
        return [given[lane] for lane in range(first, first + WARP) if lane in given]

    def warp_barrier() -> None:
        thread: Value = threading.current_thread()
        thread.syncthreads()

    def warp_ballot(flag: Value) -> Value:
        return np.uint32(sum(1 << lane for lane, raised in enumerate(_of_warp(flag)) if raised))

    def set_before(bits: Value, lane: Value) -> int:
        return (int(bits) & ((1 << int(lane)) - 1)).bit_count()

    def shuffle(value: Value, lane: Value) -> Value:
        given = _of_warp(value)
        return given[lane % len(given)]

    def warp_max(value: Value) -> Value:
        return np.fmax.reduce(_of_warp(value))

    def warp_max_key(key: Value) -> Value:
        return max(_of_warp(key))

    def warp_min_key(key: Value) -> Value:
        return min(_of_warp(key))

    def add32(a: Value, b: Value) -> Value:
        return int(a) + int(b)

    def sub32(a: Value, b: Value) -> Value:
        return int(a) - int(b)

    def mul32(a: Value, b: Value) -> Value:
        return int(a) * int(b)

    def mad(a: Value, b: Value, c: Value) -> Value:
        """a * b + c."""
        return int(a) * int(b) + int(c)

    def masked(a: Value, mask: Value) -> Value:
        """a & mask."""
        return int(a) & int(mask)

    rint, sqrt, floor, larger, smaller = np.rint, np.sqrt, np.floor, np.fmax, np.fmin
    int_min: Value = min
    int_max: Value = max
else:
    from cuda.core import ObjectCode
    from llvmlite import ir
    from numba.core.typing import signature
    from numba.cuda import cgutils, libdevice, types
    from numba.cuda.codegen import CUDACodeLibrary
    from numba.cuda.cudadrv.runtime import runtime
    from numba.cuda.dispatcher import _Kernel
    from numba.cuda.extending import intrinsic

    from kernels.cuda.machine_code import Data, from_data, to_data

    def of_two_integers(build: Value) -> Value:
        """The 32-bit operation that `build`, a method of IRBuilder, writes."""

        @intrinsic
        def operation(typing_context: Value, a: Value, b: Value) -> Value:
            def generate(context: Value, builder: Value, signature: Value, arguments: Value) -> Value:
                return build(builder, *arguments)

            return types.int32(types.int32, types.int32), generate

        return operation

    add32, sub32, mul32 = (of_two_integers(build) for build in (ir.IRBuilder.add, ir.IRBuilder.sub, ir.IRBuilder.mul))
    masked = of_two_integers(ir.IRBuilder.and_)

    @intrinsic
    def mad(typing_context: Value, a: Value, b: Value, c: Value) -> Value:
        def generate(context: Value, builder: Value, signature: Value, arguments: Value) -> Value:
            return builder.add(builder.mul(arguments[0], arguments[1]), arguments[2])

        return types.int32(types.int32, types.int32, types.int32), generate

    device = cuda.jit(device=True)
    # Copied into its caller by Numba: around calls, even those that it inlines, NVVM may order the code otherwise.
    inlined = cuda.jit(device=True, inline="always")

    def kernel(function: Function) -> Kernel:
        """Compile a kernel at its first launch, once per argument types, or load another process's."""
        compiled = cuda.jit(function)
        compiled._cache = KernelCache(compiled.py_func, compiled_by, to_data, kernel_of)
        return compiled

    def kernel_of(data: Data, argument_types: tuple[Value, ...]) -> Kernel:
        """The compiled kernel that `to_data` was given. Raises KeyError, TypeError or ValueError for other data."""
        entry, cubins = from_data(data)
        library = CUDACodeLibrary(None, entry, entry_name=entry)
        library._cubin_cache = {capability: ObjectCode.from_cubin(code) for capability, code in cubins.items()}
        library._finalized = True  # there is nothing to link
        return _Kernel._rebuild(
            cooperative=False,
            name=entry,
            signature=signature(types.none, *argument_types),
            codelibrary=library,
            debug=False,
            lineinfo=False,
            call_helper=None,  # translates the error codes of kernels with debug information
            extensions=[],
        )

    def compiled_by() -> tuple[object, ...]:
        """What machine code depends on besides its source: the GPU, and the packages that compile it."""
        capability = cuda.get_current_device().compute_capability
        return tuple(capability), runtime.get_version(), platform.python_version(), compiler_versions()

    mul, div, sqrt = libdevice.fmul_rn, libdevice.fdiv_rn, libdevice.fsqrt_rn
    rint, floor = libdevice.rintf, libdevice.floorf
    float_bits, bits_float = libdevice.float_as_int, libdevice.int_as_float
    larger, smaller, rounded = libdevice.fmaxf, libdevice.fminf, libdevice.float2int_rn
    int_min, int_max = libdevice.min, libdevice.max

    @device
    def warp_barrier() -> None:
        cuda.syncwarp(ALL_LANES)

    @device
    def warp_ballot(flag: Value) -> Value:
        """The lanes whose flag is set, as bits."""
        return np.uint32(cuda.ballot_sync(ALL_LANES, flag))

    @inlined
    def set_before(bits: Value, lane: Value) -> Value:
        """How many of the lanes before this one have their bit set."""
        return cuda.popc(u32(bits & u32((1 << lane) - 1)))

    @device
    def shuffle(value: Value, lane: Value) -> Value:
        """The value of the lane with this number, modulo 32."""
        return cuda.shfl_sync(ALL_LANES, value, lane)

    @device
    def warp_max(value: Value) -> Value:
        """The largest float32 of the warp, for each lane; NaN counts only where there is nothing else."""
        for i in range(5):
            value = larger(value, cuda.shfl_xor_sync(ALL_LANES, value, 16 >> i))
        return value

    @intrinsic
    def architecture(typing_context: Value) -> Value:
        """100 x the compute capability. NVVM puts it in: Numba lowers a device function once for GPUs of all kinds."""

        def generate(context: Value, builder: Value, signature: Value, arguments: Value) -> Value:
            text = ir.IntType(8).as_pointer()
            reflect = ir.FunctionType(ir.IntType(32), [text])  # as CUDA's own libdevice asks
            function = cgutils.get_or_insert_function(builder.module, reflect, "__nvvm_reflect")
            name = cgutils.global_constant(builder, "architecture", cgutils.make_bytearray(b"__CUDA_ARCH\0"))
            return builder.call(function, [builder.bitcast(name, text)])

        return types.int32(), generate

    def reduction(operation: str, kind: str, pairwise: Value) -> Value:
        """The min or max of a warp's 32-bit integers (s32 or u32), for each lane; pairwise: of two of them."""
        number = types.int32 if kind == "s32" else types.uint32

        @intrinsic
        def redux(typing_context: Value, value: Value) -> Value:
            def generate(context: Value, builder: Value, signature: Value, arguments: Value) -> Value:
                word = ir.FunctionType(ir.IntType(32), [ir.IntType(32)])
                text = f"redux.sync.{operation}.{kind} $0, $1, {ALL_LANES};"
                assembly = ir.InlineAsm(word, text, "=r,r", side_effect=True)
                return builder.call(assembly, arguments, attrs=("convergent",))

            return number(number), generate

        @device
        def reduce(value: Value) -> Value:
            if architecture() >= 800:
                return redux(value)
            for i in range(5):
                other = cuda.shfl_xor_sync(ALL_LANES, np.int32(value), 16 >> i)
                value = number(pairwise(value, number(other)))  # Numba takes what umin gives for signed
            return value

        return reduce

    least_signed = reduction("min", "s32", libdevice.min)
    least_unsigned = reduction("min", "u32", libdevice.umin)
    most_signed = reduction("max", "s32", libdevice.max)
    most_unsigned = reduction("max", "u32", libdevice.umax)

    @device
    def warp_max_key(key: Value) -> Value:
        """The largest int64 of the warp, for each lane: first the upper halves are compared, then the lower."""
        upper = np.int32(key >> 32)
        most = most_signed(upper)
        lower = most_unsigned(np.uint32(key) if upper == most else np.uint32(0))
        return (np.int64(most) << 32) | np.int64(lower)

    @device
    def warp_min_key(key: Value) -> Value:
        """The smallest, likewise."""
        upper = np.int32(key >> 32)
        least = least_signed(upper)
        lower = least_unsigned(np.uint32(key) if upper == least else np.uint32(0xFFFFFFFF))
        return (np.int64(least) << 32) | np.int64(lower)


@inlined
def split_index(index: Value, size: Value) -> Value:
    """index // size and index % size. index: not below 0."""
    quotient = np.int32(u32(index) // u32(size))
    return quotient, mad(quotient, -size, index)


def as_device_array(array: DeviceArray, name: str) -> DeviceArray:
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


def as_stream(stream: Stream) -> Stream:
    """Numba's stream of a handle (int), or the stream itself; 0 is the default stream."""
    if isinstance(stream, int) and stream:
        return cuda.external_stream(stream)
    return stream


def zeros(shape: tuple[int, ...], dtype: DTypeLike) -> DeviceArray:
    """A zeroed device array. It copies from the host, hence waits: at set-up only."""
    return cuda.to_device(np.zeros(shape, dtype))


def free_dropped() -> None:
    """Free the memory of deleted arrays now: Numba defers it, possibly until no context is current."""
    if SIMULATED:
        return
    from numba.cuda.cudadrv.driver import CudaAPIError

    try:
        cuda.current_context().memory_manager.deallocations.clear()
    except CudaAPIError as error:  # the device has failed, which the failing call reported
        logger.warning("the GPU could not free memory: %s", error)


def synchronize() -> None:
    """Wait for all of the device's work: at set-up only."""
    cuda.synchronize()


def device_limits() -> dict[str, int]:
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
