"""A named pipe as a video: its bytes come once, when somebody writes them, and every wait for them can be ended."""

from __future__ import annotations

import os
import select
import stat
from pathlib import Path


def is_pipe(name: str) -> bool:
    """Also of /dev/stdin, where that is a pipe."""
    try:
        return stat.S_ISFIFO(Path(name).stat().st_mode)
    except (OSError, ValueError):
        return False


class PipeReader:
    """What FFmpeg reads from in place of the file: it would open a pipe by a call that no signal ends."""

    def __init__(self, name: str) -> None:
        """Waits for a writer; a signal's exception ends the wait. Raises OSError."""
        self._pipe = os.open(name, os.O_RDONLY)
        self._woken, self._wake = os.pipe()

    def read(self, size: int) -> bytes:
        ready, _, _ = select.select([self._pipe, self._woken], [], [])
        return b"" if self._woken in ready else os.read(self._pipe, size)

    def interrupt(self) -> None:
        """From any thread: the pipe ends here."""
        if self._wake >= 0:
            os.write(self._wake, b"x")

    def close(self) -> None:
        """May be called twice."""
        for end in (self._pipe, self._woken, self._wake):
            if end >= 0:
                os.close(end)
        self._pipe = self._woken = self._wake = -1
