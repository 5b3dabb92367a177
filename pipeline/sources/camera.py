"""CameraSource: a local camera, by OpenCV."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from core.errors import SourceError
from pipeline.sources.base import Source, natural_order
from pipeline.types import Frame

MAX_INDEX = 99  # OpenCV takes the hundreds of a larger number for the backend to open it with
MAX_DIGITS = 1000  # Python reads numbers of up to 4300


class CameraSource(Source):
    """A local camera, by OpenCV. Time counts from its first frame."""

    live = True

    def __init__(self, index: int) -> None:
        import cv2

        self.name = str(index)
        # OpenCV writes a line for every backend that fails to open; the error below says it once.
        logging = cv2.utils.logging
        level = logging.getLogLevel()
        logging.setLogLevel(logging.LOG_LEVEL_SILENT)
        try:
            self._camera = cv2.VideoCapture(index)
        finally:
            logging.setLogLevel(level)
        if not self._camera.isOpened():
            raise SourceError(f"camera {index} cannot be opened; {_cameras()}")
        self._camera.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # the newest frame, not one that waited in the driver
        width, height = (int(self._camera.get(p)) for p in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
        self.frame_wh = (width, height) if width > 0 and height > 0 else None

    def __iter__(self) -> Iterator[Frame]:
        index, first_at = 0, 0.0
        while True:
            ok, image = self._camera.read()
            now = time.monotonic()
            if not ok:
                raise SourceError(f"camera {self.name} gave no frame {index}; it was unplugged or is in use elsewhere")
            first_at = first_at or now
            yield Frame(np.asarray(image, np.uint8), index, now - first_at, now, self.name)
            index += 1

    def close(self) -> None:
        self._camera.release()


def camera_index(name: str) -> int:
    """Raises SourceError for a number that no camera has."""
    if len(name) > MAX_DIGITS or int(name) > MAX_INDEX:
        raise SourceError(f"camera {name} cannot be opened; expected a number from 0 to {MAX_INDEX}; {_cameras()}")
    return int(name)


def _cameras() -> str:
    found = sorted((p.name.removeprefix("video") for p in Path("/dev").glob("video*")), key=natural_order)
    return f"cameras found: {', '.join(found)}" if found else "no camera was found"
