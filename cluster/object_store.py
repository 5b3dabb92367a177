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
from cluster.store import DRIVER, HIDDEN, NO_SPACE, RECORDS, Contents, NoSpaceError, Note, driver_note, holder, in_use
from core.errors import EngineError, SinkError

RENEW_EVERY_S = 15.0  # a driver renews its lease
EXPIRES_S = 60.0  # a lease that was not renewed for this long is void
SETTLE_S = 2.0  # after writing a lease, until that of another driver is seen that wrote at the same time


class ObjectStore:
    """A prefix on object storage. A driver locks it by a lease file that it renews. Uploads are atomic.

    On S3 the lease is written only if it is as it was read (If-Match, If-None-Match), so two drivers never hold it.
    Elsewhere, a driver that needs more than SETTLE_S between the two may overwrite another's, which then ends.
    """

    on_disk = False

    def __init__(self, url: str) -> None:
        self.where = url.rstrip("/")
        self._system: FileSystem | None = None
        self._root = ""
        self._lease: Note | None = None  # what this driver wrote; None in a worker
        self._lost: str | None = None  # why the lease is no longer this driver's

    def __getstate__(self) -> str:
        return self.where  # connections are not sent to other processes

    def __setstate__(self, url: str) -> None:
        self.__init__(url)  # type: ignore[misc]

    @contextmanager
    def locked(self) -> Iterator[str]:
        note = driver_note()
        self._claim(note)
        self._lease, self._lost = note, None
        ended = threading.Event()
        renewing = threading.Thread(target=self._renew, args=(note, ended), name="lease", daemon=True)
        renewing.start()
        try:
            yield str(note["token"])
        finally:
            ended.set()
            renewing.join()
            with suppress(SinkError):
                self._check_lease(note)
                self._remove(DRIVER)
            self._lease = None

    def check_lock(self) -> None:
        if self._lost is not None:
            raise SinkError(self._lost)

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
        """Raises SinkError, in a driver also if it has lost the lock."""
        if self._lease is not None:
            self._check_lease(self._lease)
        with self._guarded("written", name):
            self._files().pipe_file(self._path(name), content)

    def _claim(self, note: Note) -> None:
        """Write driver.json if there is none, or if the driver that wrote it has ended."""
        held, tag = self._look()
        if held is not None:
            age_s = time.time() - float(json.loads(held)["alive_at"])
            if age_s < EXPIRES_S and not _is_dead_here(held):
                raise in_use(self.where, held, f"; if it was killed, its lease ends in {EXPIRES_S - age_s:.0f} s")
            if not self._has_conditions and self.read(DRIVER) != held:
                raise in_use(self.where, self.read(DRIVER))
        try:
            self._put(note, "create" if held is None else tag)
        except SinkError as error:
            now = self.read(DRIVER)
            if now == held:
                raise
            if now is None:  # the other driver has already ended
                self._claim(note)
            elif not _is_of(now, note):  # else the request was repeated after its answer was lost
                raise in_use(self.where, now) from error
        if held is not None or not self._has_conditions:
            time.sleep(SETTLE_S)
            now = self.read(DRIVER)
            if not _is_of(now, note):
                raise in_use(self.where, now)

    def _renew(self, note: Note, ended: threading.Event) -> None:
        while self._lost is None and not ended.wait(RENEW_EVERY_S):
            with suppress(SinkError):  # the next renewal may succeed; another driver that took over is seen there
                tag = self._check_lease(note)
                self._put({**note, "alive_at": time.time()}, tag)

    def _check_lease(self, note: Note) -> str:
        """The ETag of driver.json. Raises SinkError, as check_lock does from then on, if it is another driver's."""
        held, tag = self._look()
        if not _is_of(held, note):
            taken = f"taken over by another driver ({holder(held)}), since this one did not renew its lock"
            how = "left without its lock, which was removed during the run" if held is None else taken
            self._lost = f"{self.where} was {how}; finished files are kept"
        self.check_lock()
        return tag

    def _look(self) -> tuple[bytes | None, str]:
        """driver.json and its ETag; None if there is none, "" where writes cannot depend on it."""
        tag = ""
        if self._has_conditions:
            with self._guarded("read", DRIVER), suppress(FileNotFoundError):
                tag = str(self._files().info(self._path(DRIVER)).get("ETag") or "")
        return self.read(DRIVER), tag  # a change between the two makes the conditional write fail

    def _put(self, note: Note, only_if: str) -> None:
        """Write driver.json. only_if: "create" (there is none), the ETag that it must have, or "" for any."""
        content = json.dumps(note).encode()
        with self._guarded("written", DRIVER):
            if only_if == "create":
                self._files().pipe_file(self._path(DRIVER), content, mode="create")
            elif only_if:
                self._files().pipe_file(self._path(DRIVER), content, IfMatch=only_if)
            else:
                self._files().pipe_file(self._path(DRIVER), content)

    @property
    def _has_conditions(self) -> bool:
        return self.where.startswith(("s3://", "s3a://"))

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


def _is_of(held: bytes | None, note: Note) -> bool:
    """Whether driver.json is that of a driver with this note."""
    return held is not None and json.loads(held)["token"] == note["token"]


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
