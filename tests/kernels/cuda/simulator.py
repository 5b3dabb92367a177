"""Small blocks and data for the simulator, where a thread takes half a millisecond."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import HealthCheck, settings
from numpy.typing import NDArray

from kernels.cuda._cuda import cuda
from kernels.cuda.decode import Blocks
from kernels.cuda.peaks import STRIPS
from tests.reference.decode import upsample2

TILE = 4
BLOCKS = Blocks(tile=TILE, select=8, group=8, filter=8)
LANES = TILE * STRIPS  # of the warp that has a tile


def examples(count: int) -> settings:
    """Settings for so many examples, the same in every run, so that the time is known."""
    return settings(
        max_examples=count, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )


def on_device(array: Any, dtype: Any = None) -> Any:
    return cuda.to_device(np.ascontiguousarray(array, dtype))


def orders_of(K: int, twins: Any = None, joint_order: Any = None) -> Any:
    """The (3, K) array that kernels take: each joint's mirror twin, the joint of each step, the step of each joint."""
    twins, order = (list(range(K)) if given is None else list(given) for given in (twins, joint_order))
    return on_device([twins, order, np.argsort(order)], np.int32)


def sizes_of(K: int, h: int, w: int) -> tuple[np.int32, ...]:
    """K, h, w as kernels take them."""
    return np.int32(K), np.int32(h), np.int32(w)


def flat(array: Any, dtype: Any = None) -> Any:
    """An array on the device, flat."""
    return on_device(np.ravel(array), dtype)


def tile_bounds(
    heat: NDArray[np.float32], tags: NDArray[np.float32], project: bool = True, tile: int = TILE
) -> NDArray[np.float32]:
    """What `peaks` leaves for `refine`: (1, K, 5, tiles), of un-mirrored heat (K, h, w) and tags (T, K, h/2, w/2).

    The largest heat is that of the tile's cells of the decode grid, the tags those that its own are interpolated from.
    """
    T, K, th, tw = tags.shape
    h, w = heat.shape[1:]
    scale = 2 if project else 1
    fine = np.nan_to_num(upsample2(heat) if project else heat, nan=0.0)
    tiles = [(y, x) for y in range(0, h, tile) for x in range(0, w, tile)]
    bounds = np.zeros((1, K, 5, len(tiles)), np.float32)
    for i, (y, x) in enumerate(tiles):
        cells = fine[:, y * scale : (y + tile) * scale, x * scale : (x + tile) * scale].reshape(K, -1)
        bounds[0, :, 0, i] = cells.max(axis=1).clip(min=0)
        for t in range(T):
            rows = slice(max(y // 2 - 1, 0), min(y // 2 + tile // 2 + 1, th))
            columns = slice(max(x // 2 - 1, 0), min(x // 2 + tile // 2 + 1, tw))
            found = tags[t, :, rows, columns].reshape(K, -1)
            bounds[0, :, 1 + 2 * t, i] = np.where(np.isnan(found), -np.inf, -found).max(axis=1)
            bounds[0, :, 2 + 2 * t, i] = np.where(np.isnan(found), -np.inf, found).max(axis=1)
    return bounds
