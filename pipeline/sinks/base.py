"""Sink: takes every result, in order. A sink opens its output when it is made.

`write` and `close` raise SinkError with the path; `close` finishes the file and may be called twice.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from core.errors import SinkError
from pipeline.types import Result

if TYPE_CHECKING:
    from io import FileIO


class Sink(ABC):
    """Takes every result, in order. picture: the annotated frame, (H, W, 3) uint8 BGR; a sink does not change it."""

    needs_picture = True

    @abstractmethod
    def write(self, result: Result, picture: NDArray[np.uint8]) -> None: ...

    @abstractmethod
    def close(self) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def open_file(path: Path) -> FileIO:
    """Unbuffered: what was written has left the process."""
    try:
        return path.open("wb", buffering=0)
    except OSError as error:
        raise SinkError(f"{path} cannot be written: {reason(error)}") from error


def write_all(file: FileIO, content: bytes, path: Path) -> None:
    """In one write, so that a reader never sees half of it, unless the disk takes a part; then the rest follows.

    Raises SinkError where the rest does not fit; its cause is what the system says of it.
    """
    left = memoryview(content)
    try:
        while left:
            left = left[file.write(left) :]
    except OSError as error:
        raise SinkError(f"{path} cannot be written further: {reason(error)}") from error


def reason(error: BaseException) -> str:
    return " ".join(str(getattr(error, "strerror", None) or error).split())
