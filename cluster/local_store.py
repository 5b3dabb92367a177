"""The output as a folder on a disk, which several machines may mount. A rename is the commit."""

from __future__ import annotations

import json
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

from cluster.store import DRIVER, HIDDEN, NO_SPACE, PARTIAL, RECORDS, Contents, NoSpaceError, driver_note, in_use
from core.errors import SinkError


class LocalStore:
    """A folder, which several machines may mount."""

    on_disk = True

    def __init__(self, root: Path) -> None:
        self.root = root
        self.where = str(root)

    @contextmanager
    def locked(self) -> Iterator[str]:
        with self._guarded("made"):
            for folder in (RECORDS, PARTIAL):
                (self.root / folder).mkdir(parents=True, exist_ok=True)
            lock = (self.root / HIDDEN / "driver.lock").open("ab")
        with lock:
            self._lock(lock.fileno())
            self._sweep()
            note = driver_note()
            self.write(DRIVER, json.dumps(note).encode())
            try:
                yield str(note["token"])
            finally:
                with suppress(OSError):
                    (self.root / DRIVER).unlink(missing_ok=True)
                with suppress(SinkError):
                    self._sweep()  # workers that were killed leave partial results

    def check(self, token: str) -> None:
        content = self.read(DRIVER)
        if content is None or json.loads(content)["token"] != token:
            raise SinkError(
                f"{self.where} on {socket.gethostname()} is not the driver's folder of this name; expected a folder "
                "that every machine mounts; use such a folder, or --out s3://…"
            )

    def check_lock(self) -> None:
        """Does nothing: the system keeps the lock as long as the driver runs."""

    def contents(self) -> Contents:
        results: list[str] = []
        with self._guarded("read"):
            for parent, folders, files in os.walk(self.root):
                below = Path(parent).relative_to(self.root)
                folders[:] = [name for name in folders if name != HIDDEN]
                results += [(below / name).as_posix() for name in files]
            records = frozenset(entry.name for entry in os.scandir(self.root / RECORDS))
        return Contents(frozenset(results), records)

    @contextmanager
    def attempt(self, prefix: str, scratch: Path) -> Iterator[Path]:
        with self._guarded("written"):
            folder = Path(tempfile.mkdtemp(prefix=f"{prefix}-", dir=self.root / PARTIAL))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def commit(self, folder: Path, names: Sequence[str], record: str, content: bytes, stale: Sequence[str]) -> None:
        with self._guarded("written"):
            for name in stale:
                (self.root / RECORDS / name).unlink(missing_ok=True)
            partial = [folder / PurePosixPath(name).name for name in names]
            for path in partial:
                _flush(path)
            for path, name in zip(partial, names, strict=True):
                target = self.root / name
                target.parent.mkdir(parents=True, exist_ok=True)
                path.replace(target)
            self._write(self.root / RECORDS / record, content)

    def discard(self, prefix: str) -> None:
        for folder in (self.root / PARTIAL).glob(f"{prefix}-*"):
            shutil.rmtree(folder, ignore_errors=True)

    def read(self, name: str) -> bytes | None:
        with self._guarded("read"):
            try:
                return (self.root / name).read_bytes()
            except FileNotFoundError:
                return None

    def write(self, name: str, content: bytes) -> None:
        with self._guarded("written"):
            self._write(self.root / name, content)

    def _write(self, path: Path, content: bytes) -> None:
        part = self.root / PARTIAL / f"{path.name}.{os.urandom(4).hex()}"
        try:
            part.write_bytes(content)
            _flush(part)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)

    def _sweep(self) -> None:
        """Remove all partial results. A worker whose driver was killed may still write; it then fails, as it should."""
        shutil.rmtree(self.root / PARTIAL, ignore_errors=True)
        with self._guarded("made"):
            (self.root / PARTIAL).mkdir(exist_ok=True)

    def _lock(self, descriptor: int) -> None:
        try:
            import fcntl
        except ImportError:  # Windows has no flock: two drivers repeat work, but write no partial file
            return
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise in_use(self.where, self.read(DRIVER)) from error

    @contextmanager
    def _guarded(self, verb: str) -> Iterator[None]:
        try:
            yield
        except SinkError:
            raise
        except OSError as error:
            kind = NoSpaceError if error.errno in NO_SPACE else SinkError
            raise kind(f"{error.filename or self.where} cannot be {verb}: {error.strerror or error}") from error


def _flush(path: Path) -> None:
    """Write the file's buffers to the disk: after a power cut a record must not exist without its results."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
