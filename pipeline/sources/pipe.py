"""PipeReader: reads a video from a named pipe, such that every wait can be interrupted."""

from __future__ import annotations

import os
import select
import stat
from pathlib import Path


def is_pipe(name: str) -> bool:
    """Also true for /dev/stdin if it is a pipe."""
    try:
        return stat.S_ISFIFO(Path(name).stat().st_mode)
    except (OSError, ValueError):
        return False


class PipeReader:
    """The file object that FFmpeg reads from. FFmpeg itself would open a pipe by a call that signals do not end."""

    def __init__(self, name: str) -> None:
        """Wait for a writer; the exception of a signal handler ends the wait. Raises OSError."""
        self._pipe = os.open(name, os.O_RDONLY)
        self._woken, self._wake = os.pipe()

    def read(self, size: int) -> bytes:
        ready, _, _ = select.select([self._pipe, self._woken], [], [])
        return b"" if self._woken in ready else os.read(self._pipe, size)

    def interrupt(self) -> None:
        """End the data and any wait for it. May be called from any thread."""
        if self._wake >= 0:
            os.write(self._wake, b"x")

    def close(self) -> None:
        """May be called twice."""
        for end in (self._pipe, self._woken, self._wake):
            if end >= 0:
                os.close(end)
        self._pipe = self._woken = self._wake = -1
