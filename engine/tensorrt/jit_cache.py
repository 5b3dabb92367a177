"""A cache, beside the plan, of what TensorRT-RTX compiled for this GPU in the first run, so later starts are fast.

TensorRT-RTX itself rejects a cache from another GPU, driver or version; it is then replaced. If the cache cannot be
written, the only effect is that the next start compiles again.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from core.files import write_whole

if TYPE_CHECKING:
    import tensorrt_rtx as api  # the same names in every flavour; it has no stubs

logger = logging.getLogger(__name__)


def cache_path(plan: Path) -> Path:
    return plan.with_name(plan.name + ".jit")


def load_cache(runtime_config: api.IRuntimeConfig, plan: Path) -> api.IRuntimeCache:
    """The cache that contexts of `runtime_config` read compiled kernels from and add new ones to.

    The CUDA context must be current, since the cache is checked against it.
    """
    cache = runtime_config.create_runtime_cache()
    try:
        blob = cache_path(plan).read_bytes()
    except OSError:
        blob = b""  # the first run
    if blob and not cache.deserialize(blob):
        logger.info("%s is of another GPU, driver or version; kernels are compiled anew", cache_path(plan))
    if not runtime_config.set_runtime_cache(cache):
        logger.warning("TensorRT-RTX does not take %s; kernels are compiled at every start", cache_path(plan))
    return cache


def save_cache(cache: api.IRuntimeCache, plan: Path) -> None:
    """Write the cache if this run added to it. Never raises for a file that cannot be written."""
    path = cache_path(plan)
    serialised = cache.serialize()
    if serialised is None:
        return  # nothing was compiled
    blob = bytes(serialised)
    try:
        if path.is_file() and path.stat().st_size == len(blob):
            return  # same size, no change: entries are never removed
        write_whole(path, blob)
    except OSError as error:
        logger.warning("%s cannot be written (%s); the next start compiles again", path, error.strerror or error)
