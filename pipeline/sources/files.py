"""Pictures as sources, and the checks of a file before it is opened."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from core.errors import SourceError
from pipeline.sources.base import Source
from pipeline.types import Frame


class ImageSource(Source):
    """One picture, turned upright by its EXIF orientation."""

    def __init__(self, path: str) -> None:
        check_file(path)
        self.name = path
        self.frame_count = 1

    def __iter__(self) -> Iterator[Frame]:
        yield Frame(read_image(self.name), captured_at=time.monotonic(), source=self.name)


def read_image(path: str) -> np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]:
    """(H, W, 3) uint8 BGR, upright. Raises SourceError for a file that is no readable picture."""
    import cv2

    try:
        # through memory: OpenCV cannot open every path that Python can
        coded = np.fromfile(path, np.uint8)
        image = cv2.imdecode(coded, cv2.IMREAD_COLOR) if coded.size else None
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}") from error
    except cv2.error as error:  # more pixels than OpenCV allows
        raise SourceError(f"{path} cannot be decoded: {' '.join(str(error).split())}") from error
    if image is None:
        raise SourceError(f"{path} is not a readable image; expected JPEG, PNG, WebP, TIFF or BMP")
    return np.asarray(image, np.uint8)


def check_file(name: str) -> None:
    path = Path(name)
    if not path.exists():
        raise SourceError(f"{name} does not exist; expected a video, image, folder, URL or camera index")
    if path.is_file() and path.stat().st_size == 0:
        raise SourceError(f"{name} is empty")
