"""The decode and the letterbox on the device, as Numba CUDA kernels: heads in, people out, nothing leaves the GPU.

Importing needs no GPU; building a `Workspace` does. With NUMBA_ENABLE_CUDASIM=1 the same kernels run in Python.
"""

from kernels.cuda.assignment import match
from kernels.cuda.decode import Blocks, Workspace, decode
from kernels.cuda.packed import packed_size, unpack_people
from kernels.cuda.preprocess import preprocess
from kernels.cuda.preprocess_nv12 import preprocess_nv12

__all__ = ["Blocks", "Workspace", "decode", "match", "packed_size", "preprocess", "preprocess_nv12", "unpack_people"]
