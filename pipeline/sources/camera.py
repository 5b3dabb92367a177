"""CameraSource: a local camera, read by OpenCV."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from core.errors import SourceError
from pipeline.sources.base import Source, natural_order
from pipeline.types import Frame

logger = logging.getLogger(__name__)

UNCOMPRESSED_SIDE = 640  # largest side for which cameras reach the full rate without compression
MAX_INDEX = 99  # OpenCV interprets the hundreds of a larger number as the backend
MAX_DIGITS = 1000  # Python parses numbers of up to 4300 digits


@dataclass(frozen=True)
class CameraMode:
    """A camera's width and height, and frames per second."""

    wh: tuple[int, int]
    fps: float | None = None

    @classmethod
    def parse(cls, text: str) -> CameraMode:
        """From "WxH" or "WxH@FPS". Raises ValueError."""
        match = re.fullmatch(r"(\d{2,5})x(\d{2,5})(?:@(\d{1,3}(?:\.\d+)?))?", text)
        if match is None or (match[3] is not None and not float(match[3])):
            raise ValueError(f"got {text}, expected WxH or WxH@FPS, such as 1280x720@30")
        return cls((int(match[1]), int(match[2])), None if match[3] is None else float(match[3]))

    def __str__(self) -> str:
        rate = "" if self.fps is None else f"@{self.fps:g}"
        return f"{self.wh[0]}x{self.wh[1]}{rate}"


class CameraSource(Source):
    """A local camera, read by OpenCV. Times start at its first frame.

    mode: to set; a camera without this mode uses the nearest one, which is logged.
    """

    live = True

    def __init__(self, index: int, mode: CameraMode | None = None) -> None:
        import cv2

        self.name = str(index)
        # OpenCV prints a line for every backend that cannot open the camera; one error below is enough
        logging = cv2.utils.logging
        level = logging.getLogLevel()
        logging.setLogLevel(logging.LOG_LEVEL_SILENT)
        try:
            self._camera = cv2.VideoCapture(index)
        finally:
            logging.setLogLevel(level)
        if not self._camera.isOpened():
            raise SourceError(f"camera {index} cannot be opened; {_cameras()}")
        self._camera.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # read the newest frame, not an older one from the driver's queue
        if mode is not None:
            self._set_mode(mode)
        width, height = (int(self._camera.get(p)) for p in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
        self.frame_wh = (width, height) if width > 0 and height > 0 else None
        if mode is not None and self.frame_wh != mode.wh:
            logger.warning("camera %d has no mode %s; it gives %dx%d", index, mode, width, height)

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

    def _set_mode(self, mode: CameraMode) -> None:
        import cv2

        if max(mode.wh) > UNCOMPRESSED_SIDE:
            # USB 2 is too slow for 30 uncompressed frames per second of this size
            self._camera.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG"))
        self._camera.set(cv2.CAP_PROP_FRAME_WIDTH, mode.wh[0])
        self._camera.set(cv2.CAP_PROP_FRAME_HEIGHT, mode.wh[1])
        if mode.fps is not None:
            self._camera.set(cv2.CAP_PROP_FPS, mode.fps)


def camera_index(name: str) -> int:
    """The number of a camera. Raises SourceError if it is too large."""
    if len(name) > MAX_DIGITS or int(name) > MAX_INDEX:
        raise SourceError(f"camera {name} cannot be opened; expected a number from 0 to {MAX_INDEX}; {_cameras()}")
    return int(name)


def _cameras() -> str:
    found = sorted((p.name.removeprefix("video") for p in Path("/dev").glob("video*")), key=natural_order)
    return f"cameras found: {', '.join(found)}" if found else "no camera was found"
