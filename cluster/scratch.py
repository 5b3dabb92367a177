"""Temporary folders that are removed even if their worker is killed: each has a lock that ends with its process."""

from __future__ import annotations

import getpass
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

LOCK = ".lock"


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder below TMPDIR for this process; removed afterwards, or by the next call of `sweep`."""
    sweep()
    folder = Path(tempfile.mkdtemp(dir=_parent()))
    with (folder / LOCK).open("ab") as file:
        with suppress(OSError):
            _hold(file)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def sweep() -> None:
    """Remove the folders of workers that have ended."""
    for folder in _parent().iterdir():
        # a folder without a lock was made a moment ago
        with suppress(OSError), (folder / LOCK).open("rb+") as file:
            _hold(file)
            shutil.rmtree(folder, ignore_errors=True)


def _parent() -> Path:
    folder = Path(tempfile.gettempdir()) / f"higherpose-cluster-{getpass.getuser()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def _hold(file: BinaryIO) -> None:
    """Lock the file. Raises OSError if another process holds the lock, and always where there is no flock (Windows),
    so that nothing is removed there."""
    try:
        import fcntl
    except ImportError as error:
        raise OSError("this system has no flock") from error
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
