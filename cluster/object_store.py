"""The output on object storage, through fsspec. One upload is the commit."""

from __future__ import annotations

import json
import os
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

from cluster.remote import FileSystem, open_file_system, reason
from cluster.store import DRIVER, HIDDEN, NO_SPACE, RECORDS, Contents, NoSpaceError, driver_note, in_use
from core.errors import EngineError, SinkError

RENEW_EVERY_S = 15.0  # a driver renews its lease
EXPIRES_S = 60.0  # a lease that was not renewed for this long is void
SETTLE_S = 2.0  # after taking over a void lease, until another that did so at the same time is seen


class ObjectStore:
    """A prefix on object storage. A driver locks it by a lease file that it renews. Uploads are atomic."""

    on_disk = False

    def __init__(self, url: str) -> None:
        self.where = url.rstrip("/")
        self._system: FileSystem | None = None
        self._root = ""
        self._lease: dict[str, str | int | float] | None = None  # what the driver wrote; None in a worker

    def __getstate__(self) -> str:
        return self.where  # connections are not sent to other processes

    def __setstate__(self, url: str) -> None:
        self.__init__(url)  # type: ignore[misc]

    @contextmanager
    def locked(self) -> Iterator[str]:
        self._lease = note = driver_note()
        self._claim(note)
        ended = threading.Event()
        renewing = threading.Thread(target=self._renew, args=(note, ended), name="lease", daemon=True)
        renewing.start()
        try:
            yield str(note["token"])
        finally:
            ended.set()
            renewing.join()
            with suppress(SinkError):
                if self._is_ours(note):
                    self._remove(DRIVER)

    def check(self, token: str) -> None:
        content = self.read(DRIVER)
        if content is None or json.loads(content)["token"] != token:
            raise SinkError(
                f"{self.where} as {socket.gethostname()} sees it is not the driver's output; expected the same storage "
                "and credentials on every machine"
            )

    def contents(self) -> Contents:
        with self._guarded("listed"):
            names = self._files().find(self._root, detail=True)
        below = [name.removeprefix(f"{self._root}/") for name in names]
        return Contents(
            frozenset(name for name in below if not name.startswith(f"{HIDDEN}/")),
            frozenset(name.removeprefix(f"{RECORDS}/") for name in below if name.startswith(f"{RECORDS}/")),
        )

    @contextmanager
    def attempt(self, prefix: str, scratch: Path) -> Iterator[Path]:
        folder = Path(tempfile.mkdtemp(prefix=f"{prefix}-", dir=scratch))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def commit(self, folder: Path, names: Sequence[str], record: str, content: bytes, stale: Sequence[str]) -> None:
        for name in stale:
            self._remove(f"{RECORDS}/{name}")
        for name in names:
            with self._guarded("written", name):
                self._files().put_file(str(folder / PurePosixPath(name).name), self._path(name))
        self.write(f"{RECORDS}/{record}", content)

    def discard(self, prefix: str) -> None:
        """Does nothing: partial results are on the worker's machine."""

    def read(self, name: str) -> bytes | None:
        with self._guarded("read", name):
            try:
                return self._files().cat_file(self._path(name))
            except FileNotFoundError:
                return None

    def write(self, name: str, content: bytes) -> None:
        """Raises SinkError, in a driver also if another one has taken over meanwhile."""
        if self._lease is not None and not self._is_ours(self._lease):
            raise SinkError(
                f"{self.where}/{name} is not written: another driver took over, since this one was not seen"
            )
        with self._guarded("written", name):
            self._files().pipe_file(self._path(name), content)

    def _claim(self, note: dict[str, str | int | float]) -> None:
        """Write driver.json if there is none, or if the driver that wrote it has ended."""
        held = self.read(DRIVER)
        if held is not None:
            age_s = time.time() - float(json.loads(held)["alive_at"])
            if age_s < EXPIRES_S and not _is_dead_here(held):
                raise in_use(self.where, held, f"; if it was killed, its lease ends in {EXPIRES_S - age_s:.0f} s")
            if self.read(DRIVER) != held:  # another one was faster
                raise in_use(self.where, self.read(DRIVER))
            self._remove(DRIVER)
        with self._guarded("written", DRIVER):
            try:
                self._files().pipe_file(self._path(DRIVER), json.dumps(note).encode(), mode="create")
            except FileExistsError as error:
                raise in_use(self.where, self.read(DRIVER)) from error
        if held is not None:
            time.sleep(SETTLE_S)
            if not self._is_ours(note):
                raise in_use(self.where, self.read(DRIVER))

    def _renew(self, note: dict[str, str | int | float], ended: threading.Event) -> None:
        while not ended.wait(RENEW_EVERY_S):
            # the next renewal may succeed; if not, or if another driver took over, writing results fails
            with suppress(SinkError):
                self.write(DRIVER, json.dumps({**note, "alive_at": time.time()}).encode())

    def _is_ours(self, note: dict[str, str | int | float]) -> bool:
        content = self.read(DRIVER)
        return content is not None and json.loads(content)["token"] == note["token"]

    def _remove(self, name: str) -> None:
        with self._guarded("removed", name), suppress(FileNotFoundError):
            self._files().rm_file(self._path(name))

    def _files(self) -> FileSystem:
        if self._system is None:
            self._system, self._root = open_file_system(self.where)
        return self._system

    def _path(self, name: str) -> str:
        self._files()
        return f"{self._root}/{name}"

    @contextmanager
    def _guarded(self, verb: str, name: str = "") -> Iterator[None]:
        try:
            yield
        except (SinkError, EngineError):
            raise
        except Exception as error:  # every backend of fsspec has errors of its own
            kind = NoSpaceError if isinstance(error, OSError) and error.errno in NO_SPACE else SinkError
            raise kind(f"{self.where}/{name} cannot be {verb}: {reason(error)}") from error


def _is_dead_here(note: bytes) -> bool:
    """Whether the driver of a note ran on this machine and has ended."""
    holder = json.loads(note)
    return holder["host"] == socket.gethostname() and not _is_running(int(holder["pid"]))


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
