"""ImageSink: writes one annotated picture."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from core.errors import SinkError
from pipeline.sinks.base import Sink, open_file, write_all
from pipeline.sources import IMAGE_SUFFIXES
from pipeline.types import Result


class ImageSink(Sink):
    """Writes one picture in the format of its suffix."""

    def __init__(self, path: Path) -> None:
        if path.suffix.lower() not in IMAGE_SUFFIXES:
            raise ValueError(f"{path} has no known image suffix; expected one of {', '.join(sorted(IMAGE_SUFFIXES))}")
        self.path = path
        self._file = open_file(path)
        self._written = False

    def write(self, result: Result, picture: NDArray[np.uint8]) -> None:
        done, coded = cv2.imencode(self.path.suffix, picture)
        if not done:
            raise SinkError(f"{self.path} cannot be encoded as {self.path.suffix}")
        self._file.seek(0)
        write_all(self._file, coded.tobytes(), self.path)
        self._written = True

    def close(self) -> None:
        if not self._file.closed:
            self._file.close()
            if not self._written:
                self.path.unlink(missing_ok=True)
