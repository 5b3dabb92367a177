"""The store for what a user gives to --out."""

from __future__ import annotations

import os
from pathlib import Path

from cluster.local_store import LocalStore
from cluster.object_store import ObjectStore
from cluster.store import Store
from pipeline.sources import is_url


def open_store(out: str) -> Store:
    """For a folder, or a URL that fsspec knows; both are first looked at when they are used."""
    return ObjectStore(out) if is_url(out) else LocalStore(Path(os.path.abspath(out)))  # noqa: PTH100
