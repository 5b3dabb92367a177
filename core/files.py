"""The cache folder, and files that are complete or absent even if several processes write them."""

from __future__ import annotations

import os
import threading
from contextlib import AbstractContextManager, suppress
from pathlib import Path

from filelock import FileLock
from platformdirs import user_cache_path


def cache_folder(kind: str) -> Path:
    """The folder for files that can be made again: the system's cache folder ($XDG_CACHE_HOME, or ~/.cache, on Linux),
    then higherpose, then `kind`."""
    root = user_cache_path("higherpose", appauthor=False)
    with suppress(OSError):  # a later write there reports the error
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        root.chmod(0o700)  # plans are code: no other user may read or write, also in a folder made earlier
    return root / kind


def write_whole(path: Path, content: bytes, *, private: bool = False) -> None:
    """Write a temporary file beside `path`, then rename it: a reader sees the complete old or new file. Raises OSError.

    private: only this user may read and write the file.
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
    """Hold the lock file `path` against other processes and threads. The lock is released if its holder dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(path)
