"""The cache folder, and files that are whole or absent, whoever else writes them."""

from __future__ import annotations

import os
import threading
from contextlib import AbstractContextManager
from pathlib import Path

from filelock import FileLock
from platformdirs import user_cache_path


def cache_folder(kind: str) -> Path:
    """Where files that can be made again are kept: the system's cache folder ($XDG_CACHE_HOME, or ~/.cache, on Linux),
    then higherpose, then `kind`."""
    return user_cache_path("higherpose", appauthor=False) / kind


def write_whole(path: Path, content: bytes) -> None:
    """Write beside `path`, then move into its place: a reader sees the old file or all of the new. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.part")
    try:
        part.write_bytes(content)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def locked(path: Path) -> AbstractContextManager[object]:
    """Hold the lock file `path` against other processes and threads; a holder that dies lets go."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(path)
