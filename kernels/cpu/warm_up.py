"""Compilation before the first frame."""

from __future__ import annotations

import numpy as np

from kernels.cpu.assignment import match
from kernels.cpu.decode import decode
from kernels.cpu.preprocess import preprocess
from kernels.cpu.scales import decode_scales


def warm_up() -> None:
    """Compiles what finds people in a frame from host memory, or loads it from the cache: in a folder `njit-…` in
    NUMBA_CACHE_DIR if that is set, else in kernels/cpu/__pycache__, else in the user's cache folder under higherpose.
    Where none can be written, each process compiles. A second call costs nothing. `paint` is not included."""
    for writable in (True, False):  # a read-only frame is another type to Numba
        image = np.zeros((4, 4, 3), np.uint8)
        image.flags.writeable = writable
        preprocess(image, np.zeros((3, 4, 4), np.float32), scale=1, center=(2, 2), mean=(0, 0, 0), std=(1, 1, 1))
    heatmaps, tags = np.zeros((2, 17, 4, 4), np.float32), np.zeros((2, 17, 2, 2), np.float32)
    decode(heatmaps, tags)
    decode_scales([(heatmaps, tags)], (8, 8))
    match(np.zeros((1, 1), np.float32), np.zeros(1, np.float32))
