"""The cache folder, and files that are whole or absent, whoever else writes them."""

from __future__ import annotations

import os
import threading
from contextlib import AbstractContextManager, suppress
from pathlib import Path

from filelock import FileLock
from platformdirs import user_cache_path


def cache_folder(kind: str) -> Path:
    """Where files that can be made again are kept: the system's cache folder ($XDG_CACHE_HOME, or ~/.cache, on Linux),
    then higherpose, then `kind`."""
    root = user_cache_path("higherpose", appauthor=False)
    with suppress(OSError):  # what is written there says so in its own words
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        root.chmod(0o700)  # plans are code: nobody else may look or write, whenever the folder was made
    return root / kind


def write_whole(path: Path, content: bytes, *, private: bool = False) -> None:
    """Write beside `path`, then move into its place: a reader sees the old file or all of the new. Raises OSError.

    private: readable and writable for this user alone.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.part")
    try:
        if private:
            part.touch(mode=0o600)
        part.write_bytes(content)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def locked(path: Path) -> AbstractContextManager[object]:
    """Hold the lock file `path` against other processes and threads; a holder that dies lets go."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(path)
