"""Opens the store of an --out argument."""

from __future__ import annotations

import os
from pathlib import Path

from cluster.local_store import LocalStore
from cluster.object_store import ObjectStore
from cluster.store import Store
from pipeline.sources import is_url


def open_store(out: str) -> Store:
    """out: a folder, or a URL that fsspec knows. Neither is accessed before the store is used."""
    return ObjectStore(out) if is_url(out) else LocalStore(Path(os.path.abspath(out)))  # noqa: PTH100
