"""Where results lie. A Store is opened by the driver, which holds it alone, and by every worker, which adds to it.

In the output folder: results by their names, `failed.jsonl`, `summary.json`, and a folder `.higherpose` with
`records/` (one a finished file: done is what has a record), `partial/` (results in the making) and `driver.json`.
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


class NoSpaceError(SinkError):
    """The output has no room: no other file, and no other worker, would fare better."""


@dataclass(frozen=True)
class Contents:
    """What an output folder holds. results: names of everything but the hidden folder. records: names of records."""

    results: frozenset[str]
    records: frozenset[str]


class Store(Protocol):
    """Picklable until used. Every method raises SinkError with the place, NoSpaceError where there is no room."""

    where: str
    on_disk: bool  # results in the making lie on the output's own disk, not in a machine's temporary folder

    def held(self) -> AbstractContextManager[str]:
        """The folder for one driver alone, made if it is missing; gives a token by which workers recognise it.

        Raises SinkError if another driver holds it. Partial results that a driver before left behind are removed.
        """
        ...

    def check(self, token: str) -> None:
        """Raises SinkError where this machine does not see the folder that the driver with this token holds."""

    def contents(self) -> Contents: ...

    def attempt(self, place: str, scratch: Path) -> AbstractContextManager[Path]:
        """A local folder for the results of one job in the making, in `scratch` or on the output's own disk; removed
        afterwards."""
        ...

    def commit(self, folder: Path, names: Sequence[str], record: str, content: bytes, stale: Sequence[str]) -> None:
        """Remove stale records, move results from an attempt's folder to where their names say, then add the record.

        In `folder` a result lies under the last part of its name.
        A reader sees a result whole or not at all; a file that is done a second time replaces the first.
        """

    def discard(self, place: str) -> None:
        """Remove what a worker that is gone left of a job."""

    def read(self, name: str) -> bytes | None:
        """The file's bytes, or None if there is none."""
        ...

    def write(self, name: str, content: bytes) -> None:
        """A whole file, or none."""


def driver_note() -> dict[str, str | int | float]:
    """What a driver leaves in driver.json: who it is, for the one that is refused."""
    return {"token": os.urandom(8).hex(), "host": socket.gethostname(), "pid": os.getpid(), "alive_at": time.time()}


def in_use(where: str, note: bytes | None, hint: str = "") -> SinkError:
    """What the second of two drivers is told. note: what driver.json holds."""
    holder = json.loads(note) if note else {"host": "an unknown host", "pid": "unknown"}
    return SinkError(
        f"{where} is in use by another driver (process {holder['pid']} on {holder['host']}); wait for it to end, "
        f"or choose another --out{hint}"
    )
