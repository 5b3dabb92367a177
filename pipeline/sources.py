"""Where frames come from: `open_source` for what a user types, and the sources that are not video files."""

from __future__ import annotations

import glob
import re
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Self

import numpy as np

from engine.errors import SourceError
from pipeline.types import Frame

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
STREAM_SCHEMES = frozenset({"rtmp", "rtmps", "rtp", "rtsp", "rtsps", "srt", "udp"})
VIDEO_SUFFIXES = frozenset(
    {".avi", ".flv", ".gif", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm", ".wmv"}
)


class Source(ABC):
    """Frames, once, in order. Iterate in one thread; `interrupt` may come from another; then close.

    name: what the user typed. live: frames come at their own time, and those that find no room are dropped.
    frame_count: how many frames will come, if that can be told beforehand (a container may be wrong).
    frame_wh: width and height of the first frame, if known beforehand.
    """

    name: str = ""
    live: bool = False
    frame_count: int | None = None
    frame_wh: tuple[int, int] | None = None

    @property
    def parts(self) -> tuple[str, ...]:
        """The names that its frames carry, one for each source in it."""
        return (self.name,)

    @abstractmethod
    def __iter__(self) -> Iterator[Frame]:
        """Raises SourceError where the source cannot be read further."""

    def interrupt(self) -> None:  # noqa: B027  (most sources never wait)
        """End a wait of the iterating thread, if it is in one. Safe from any thread."""

    def close(self) -> None:  # noqa: B027  (an image holds nothing)
        """Release what is open. May be called twice; not while another thread iterates."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def open_source(*sources: str | int | Path, realtime: bool = False) -> Source:
    """One source out of what a user types: video files, URLs, cameras, images, folders, globs; several run in turn.

    A number is a camera. A folder or glob gives its images and videos in natural order. Every file is looked at now,
    so that a wrong one is reported before any work.
    realtime: play files at their own speed as if they were cameras, dropping what comes too fast.
    Raises SourceError (missing, empty or unreadable) or ValueError (no source given).
    """
    parts = [part for source in sources for part in _expand(str(source))]
    if not parts or not all(parts):
        raise ValueError("no source given; expected a video, image, folder, URL or camera index")
    live = [part for part in parts if is_camera(part) or is_stream(part)]
    if live and len(parts) > 1:
        raise ValueError(f"{live[0]} is live and may never end; name it alone, without the other {len(parts) - 1}")
    source = _open_part(parts[0]) if len(parts) == 1 else Chain(parts)
    return RealTime(source) if realtime and not source.live else source


def is_image(name: str) -> bool:
    """Whether a source of this name is one picture, not a video."""
    return not is_url(name) and Path(name).suffix.lower() in IMAGE_SUFFIXES


def is_camera(name: str) -> bool:
    return name.isdecimal()


def is_url(name: str) -> bool:
    return re.match(r"[a-z][a-z0-9+.-]+://", name, re.IGNORECASE) is not None


def is_stream(name: str) -> bool:
    """An address whose server cannot be asked to wait: frames come at their own time."""
    return is_url(name) and name.split("://", maxsplit=1)[0].lower() in STREAM_SCHEMES


class ImageSource(Source):
    """One picture, turned upright by its EXIF orientation."""

    def __init__(self, path: str) -> None:
        _check_file(path)
        self.name = path
        self.frame_count = 1

    def __iter__(self) -> Iterator[Frame]:
        yield Frame(read_image(self.name), captured_at=time.monotonic(), source=self.name)


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


class Chain(Source):
    """Several sources, one after another; each frame names its own and counts from 0 there."""

    def __init__(self, names: Sequence[str]) -> None:
        self.name = f"{len(names)} sources"
        self._names = names
        self._current: Source | None = None
        self._interrupted = False
        counts: list[int | None] = []
        for name in names:
            with _open_part(name) as part:
                counts.append(part.frame_count)
                self.frame_wh = self.frame_wh or part.frame_wh
        known = [count for count in counts if count is not None]
        self.frame_count = sum(known) if len(known) == len(counts) else None

    @property
    def parts(self) -> tuple[str, ...]:
        return tuple(self._names)

    def __iter__(self) -> Iterator[Frame]:
        for name in self._names:
            if self._interrupted:
                return
            with _open_part(name) as self._current:
                yield from self._current

    def interrupt(self) -> None:
        self._interrupted = True
        if self._current is not None:
            self._current.interrupt()

    def close(self) -> None:
        if self._current is not None:
            self._current.close()


class RealTime(Source):
    """A recorded source at its own speed, as if it were a camera."""

    live = True

    def __init__(self, source: Source) -> None:
        self._source = source
        self._interrupted = threading.Event()
        self.name, self.frame_count, self.frame_wh = source.name, source.frame_count, source.frame_wh

    @property
    def parts(self) -> tuple[str, ...]:
        return self._source.parts

    def __iter__(self) -> Iterator[Frame]:
        started = 0.0
        for frame in self._source:
            if frame.index == 0:  # each source of a chain has its own clock
                started = time.monotonic()
            if self._interrupted.wait(max(0.0, started + frame.time_s - time.monotonic())):
                return
            yield replace(frame, captured_at=time.monotonic())

    def interrupt(self) -> None:
        self._interrupted.set()
        self._source.interrupt()

    def close(self) -> None:
        self._source.close()


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


def natural_order(name: str) -> list[tuple[int, int, str]]:
    """Sort key by which frame2 comes before frame10."""
    return [(0, int(text), "") if text.isdecimal() else (1, 0, text) for text in re.split(r"(\d+)", name.lower())]


def _expand(source: str) -> list[str]:
    if is_url(source) or is_camera(source) or not source:
        return [source]
    path = Path(source)
    if path.is_dir():
        found = [str(p) for p in path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES | VIDEO_SUFFIXES and p.is_file()]
        if not found:
            raise SourceError(f"folder {source} holds no images or videos")
        return sorted(found, key=natural_order)
    if not path.exists() and glob.has_magic(source):
        found = [name for name in glob.glob(source, recursive=True) if Path(name).is_file()]  # noqa: PTH207
        if not found:
            raise SourceError(f"no file matches {source}")
        return sorted(found, key=natural_order)
    return [source]


def _open_part(name: str) -> Source:
    if is_camera(name):
        return CameraSource(int(name))
    if is_image(name):
        return ImageSource(name)
    if not is_url(name):
        _check_file(name)
    from pipeline.video import VideoSource

    return VideoSource(name)


def _check_file(name: str) -> None:
    path = Path(name)
    if not path.exists():
        raise SourceError(f"{name} does not exist; expected a video, image, folder, URL or camera index")
    if path.is_file() and path.stat().st_size == 0:
        raise SourceError(f"{name} is empty")


def _cameras() -> str:
    found = sorted((p.name.removeprefix("video") for p in Path("/dev").glob("video*")), key=natural_order)
    return f"cameras found: {', '.join(found)}" if found else "no camera was found"
