"""The decode and the drawing on the host, compiled by Numba: in one thread, without the GIL; nothing starts a thread.

The first call of each function compiles it (half a minute in all) or loads it from a cache: see `warm_up`.
"""

from kernels.cpu.assignment import match
from kernels.cpu.decode import decode
from kernels.cpu.preprocess import preprocess
from kernels.cpu.preprocess_nv12 import preprocess_nv12
from kernels.cpu.scales import decode_scales
from kernels.cpu.strokes import paint
from kernels.cpu.warm_up import warm_up

__all__ = ["decode", "decode_scales", "match", "paint", "preprocess", "preprocess_nv12", "warm_up"]
