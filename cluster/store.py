"""Where results are stored. The driver opens a Store and locks it; every worker opens it too and adds results.

The output folder holds the results, `failed.jsonl`, `summary.json`, and a folder `.higherpose` with `records/` (one for
each finished file), `partial/` (unfinished results) and `driver.json`.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from core.errors import SinkError

HIDDEN = ".higherpose"
RECORDS, PARTIAL, DRIVER = f"{HIDDEN}/records", f"{HIDDEN}/partial", f"{HIDDEN}/driver.json"
NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})
Note = dict[str, str | int | float]  # the content of driver.json


class NoSpaceError(SinkError):
    """The output is full, for every file and every worker."""


@dataclass(frozen=True)
class Contents:
    """results: names of all files outside the hidden folder. records: names of records."""

    results: frozenset[str]
    records: frozenset[str]


class Store(Protocol):
    """Picklable until used. Every method raises SinkError with the path, NoSpaceError if the disk is full."""

    where: str
    on_disk: bool  # unfinished results are on the output's disk, not in a worker's temporary folder

    def locked(self) -> AbstractContextManager[str]:
        """Lock the folder for this driver, and make it if it is missing. Gives a token for `check`.

        Raises SinkError if another driver holds the lock. Removes partial results of an earlier driver.
        """
        ...

    def check(self, token: str) -> None:
        """Raises SinkError if this machine does not see the folder that the driver with this token has locked."""

    def check_lock(self) -> None:
        """Raises SinkError if this driver is known to have lost the lock. Does not access the store."""

    def contents(self) -> Contents: ...

    def attempt(self, prefix: str, scratch: Path) -> AbstractContextManager[Path]:
        """A local folder for the unfinished results of one job, in `scratch` or on the output's disk; removed
        afterwards."""
        ...

    def commit(self, folder: Path, names: Sequence[str], record: str, content: bytes, stale: Sequence[str]) -> None:
        """Remove stale records, move results from an attempt's folder to their names, then add the record.

        A result's file name in `folder` is the last part of its name. Each result appears complete or not at all, and
        replaces an earlier one.
        """

    def discard(self, prefix: str) -> None:
        """Remove the partial results of a job whose worker has ended."""

    def read(self, name: str) -> bytes | None:
        """The file's bytes, or None if there is none."""
        ...

    def write(self, name: str, content: bytes) -> None:
        """Write a file, complete or not at all."""


def driver_note() -> Note:
    """The content of driver.json: which driver holds the lock, for the message to another driver."""
    return {"token": os.urandom(8).hex(), "host": socket.gethostname(), "pid": os.getpid(), "alive_at": time.time()}


def in_use(where: str, note: bytes | None, hint: str = "") -> SinkError:
    """The error for the second of two drivers. note: the content of driver.json."""
    return SinkError(
        f"{where} is in use by another driver ({holder(note)}); wait for it to end, or choose another --out{hint}"
    )


def holder(note: bytes | None) -> str:
    """Process and host of the driver that wrote driver.json."""
    content = json.loads(note) if note else {"host": "an unknown host", "pid": "unknown"}
    return f"process {content['pid']} on {content['host']}"
