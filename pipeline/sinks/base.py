"""Sink: the base class of all sinks. A sink gets every result, in order. Its constructor opens the output.

`write` and `close` raise SinkError with the path; `close` finishes the file and may be called twice.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from core.errors import SinkError
from pipeline.sinks.pipes import is_stdout, open_pipe, open_stdout
from pipeline.types import Result

if TYPE_CHECKING:
    from io import FileIO


class Sink(ABC):
    """Gets every result, in order. needs_picture: whether `write` uses the annotated picture."""

    needs_picture = True

    @abstractmethod
    def write(self, result: Result, picture: NDArray[np.uint8]) -> None:
        """picture: the annotated frame, (H, W, 3) uint8 BGR, which a sink must not change; else the frame's image."""

    @abstractmethod
    def close(self) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def open_file(path: Path) -> FileIO:
    """Open for writing, unbuffered, so that written data survives a crash of the process. `-` is stdout.

    Raises SinkError; for a named pipe that nobody reads too, see `waiting_for_readers`.
    """
    try:
        if is_stdout(path):
            return open_stdout()
        return open_pipe(path) if path.is_fifo() else path.open("wb", buffering=0)
    except OSError as error:
        raise SinkError(f"{path} cannot be written: {reason(error)}") from error


def write_all(file: FileIO, content: bytes, path: Path) -> None:
    """Write `content` by one system call, so that readers see it complete; if the system writes a part, write the rest.

    Raises SinkError if the rest does not fit, with the system's error as its cause.
    """
    left = memoryview(content)
    try:
        while left:
            left = left[file.write(left) :]
    except OSError as error:
        raise SinkError(f"{path} cannot be written further: {reason(error)}") from error


def reason(error: BaseException) -> str:
    return " ".join(str(getattr(error, "strerror", None) or error).split())
