"""Output into pipes and to stdout: a reader that does not come, or does not read, cannot hang the program."""

from __future__ import annotations

import errno
import os
import select
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from io import FileIO
from pathlib import Path

from core.signals import seconds_since_stop

STDOUT = Path("-")  # as an argument; its own name is taken for it too
STDOUT_NAMES = (str(STDOUT), "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1")
POLL_S = 0.1
END_S = 5.0  # how long a reader that does not read is waited for once the program is to end


class PipeFile(FileIO):
    """The writing end of a pipe, by a descriptor in non-blocking mode, which it closes.

    `write` writes all and waits for the reader as long as it takes; once the program was asked to end, at most `END_S`
    longer, then it raises OSError.
    """

    def write(self, content: object) -> int:
        left = memoryview(content).cast("B")  # type: ignore[arg-type]  # whatever has a buffer, as FileIO's
        size = len(left)
        while left:
            written: int | None = super().write(left)
            if written is None:  # full
                self._wait()
            else:
                left = left[written:]
        return size

    def _wait(self) -> None:
        while not select.select([], [self], [], POLL_S)[1]:
            stopping = seconds_since_stop()
            if stopping is not None and stopping > END_S:
                raise OSError(errno.ETIMEDOUT, "its reader does not read")


def is_stdout(path: Path | None) -> bool:
    return str(path) in STDOUT_NAMES


def open_pipe(path: Path) -> PipeFile:
    """Raises OSError if nobody has it open for reading."""
    try:
        return PipeFile(os.open(path, os.O_WRONLY | os.O_NONBLOCK), "wb")
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise OSError(errno.ENXIO, "nobody reads it") from error
        raise


def open_stdout() -> FileIO:
    """Its own descriptor, so that closing it leaves stdout open."""
    if stat.S_ISFIFO(os.fstat(1).st_mode) and Path("/proc/self/fd/1").exists():  # opened anew: others share its mode
        return open_pipe(Path("/proc/self/fd/1"))
    return FileIO(os.dup(1), "wb")


@contextmanager
def waiting_for_readers(paths: Iterable[Path | None]) -> Iterator[None]:
    """Wait until each named pipe among the paths has a reader, and hold it open within the block, which opens it too.

    A signal ends the waiting.
    """
    with ExitStack() as stack:
        for path in paths:
            if path is not None and not is_stdout(path) and path.is_fifo():
                stack.callback(os.close, _wait_for_reader(path))
        yield


def _wait_for_reader(path: Path) -> int:
    while True:
        try:
            return os.open(path, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
        time.sleep(POLL_S)
