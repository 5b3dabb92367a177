"""ImageSource, and the checks of a file before it is opened."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from core.errors import SourceError
from pipeline.sources.base import Source
from pipeline.types import Frame

_SILENCE = threading.Lock()  # one thread at a time redirects stderr


class ImageSource(Source):
    """A still image, rotated by its EXIF orientation."""

    def __init__(self, path: str) -> None:
        check_file(path)
        self.name = path
        self.frame_count = 1

    def __iter__(self) -> Iterator[Frame]:
        yield Frame(read_image(self.name), captured_at=time.monotonic(), source=self.name)


def read_image(path: str) -> np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]:
    """(H, W, 3) uint8 BGR, upright. Raises SourceError for a file that is not a readable image."""
    import cv2

    try:
        # decoded from memory, since OpenCV cannot open every path that Python can
        coded = np.fromfile(path, np.uint8)
        with _libraries_silent():
            image = cv2.imdecode(coded, cv2.IMREAD_COLOR) if coded.size else None
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}") from error
    except cv2.error as error:  # more pixels than OpenCV allows
        raise SourceError(f"{path} cannot be decoded: {' '.join(str(error).split())}") from error
    if image is None:
        raise SourceError(f"{path} is not a readable image; expected JPEG, PNG, WebP, TIFF or BMP")
    return np.asarray(image, np.uint8)


@contextmanager
def _libraries_silent() -> Iterator[None]:
    """Discard the messages that libjpeg, libpng and libtiff write to stderr; our error reports damage in one line."""
    with _SILENCE:
        try:
            stderr = os.dup(2)
        except OSError:  # stderr is closed
            yield
            return
        null = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(null, 2)
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            os.close(null)


def check_file(name: str) -> None:
    """Raises SourceError if the file does not exist, is empty, or is a device, whose data may have no end."""
    path = Path(name)
    if not path.exists():
        raise SourceError(f"{name} does not exist; expected a video, image, folder, URL or camera index")
    if path.is_char_device():
        raise SourceError(f"{name} is a device; expected a video file, or for a camera its number, such as 0")
    if path.is_file() and path.stat().st_size == 0:
        raise SourceError(f"{name} is empty")
