"""Files that are whole or absent, whoever else writes them. Standard library only: any folder may import it."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def cache_folder(kind: str) -> Path:
    """Where files that can be made again are kept: $XDG_CACHE_HOME, or ~/.cache, then higherpose, then `kind`."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "higherpose" / kind


def write_whole(path: Path, content: bytes) -> None:
    """Write beside `path`, then move into its place: a reader sees the old file or all of the new. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.part")
    try:
        part.write_bytes(content)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file `path` against other processes and threads; a holder that dies lets go.

    Where the system has no flock (Windows) nothing is held: with write_whole that costs double work, not a file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        with suppress(ImportError):
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        yield
