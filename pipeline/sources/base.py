"""Source: frames, once, in order; and what the names of sources say."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from pipeline.types import Frame

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
BROWSER = "browser"
STREAM_SCHEMES = frozenset({"rtmp", "rtmps", "rtp", "rtsp", "rtsps", "srt", "udp"})
VIDEO_SUFFIXES = frozenset(
    {".avi", ".flv", ".gif", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm", ".wmv"}
)


class Source(ABC):
    """Frames, once, in order. Iterate in one thread; `interrupt` may come from another; then close.

    name: what the user typed. live: frames come at their own time, and those that find no room are dropped.
    frame_count: how many frames will come, if that can be told beforehand (a container may be wrong).
    frame_wh: width and height of the first frame, if known beforehand.
    keeps_newest: it waits for the reader with its newest frames, so that nobody has to drop any behind it.
    dropped: frames that it dropped itself.
    """

    name: str = ""
    live: bool = False
    frame_count: int | None = None
    frame_wh: tuple[int, int] | None = None
    keeps_newest: bool = False
    dropped: int = 0

    @property
    def parts(self) -> tuple[str, ...]:
        """The names that its frames carry, one for each source in it."""
        return (self.name,)

    @abstractmethod
    def __iter__(self) -> Iterator[Frame]:
        """Raises SourceError where the source cannot be read further."""

    def batches(self, size: int) -> Iterator[list[Frame]]:
        """The frames in lists of up to `size`, all of one shape; the frames before a failure come out first."""
        batch: list[Frame] = []
        failure: Exception | None = None
        frames = iter(self)
        while failure is None:
            try:
                frame = next(frames)
            except StopIteration:
                break
            except Exception as error:
                failure = error
                break
            if batch and frame.image.shape != batch[0].image.shape:
                yield batch
                batch = []
            batch.append(frame)
            if len(batch) == size:
                yield batch
                batch = []
        if batch:
            yield batch
        if failure is not None:
            raise failure

    def interrupt(self) -> None:  # noqa: B027  (most sources never wait)
        """End a wait of the iterating thread, if it is in one. Safe from any thread."""

    def close(self) -> None:  # noqa: B027  (an image holds nothing)
        """Release what is open. May be called twice; not while another thread iterates."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def is_image(name: str) -> bool:
    """Whether a source of this name is one picture, not a video."""
    return not is_url(name) and Path(name).suffix.lower() in IMAGE_SUFFIXES


def is_camera(name: str) -> bool:
    return name.isdecimal()


def is_browser(name: str) -> bool:
    """The camera of whoever opens the page."""
    return name == BROWSER


def is_url(name: str) -> bool:
    return re.match(r"[a-z][a-z0-9+.-]+://", name, re.IGNORECASE) is not None


def is_stream(name: str) -> bool:
    """An address whose server cannot be asked to wait: frames come at their own time."""
    return is_url(name) and name.split("://", maxsplit=1)[0].lower() in STREAM_SCHEMES


def natural_order(name: str) -> list[tuple[int, int, str]]:
    """Sort key by which frame2 comes before frame10."""
    return [(0, int(text), "") if text.isdecimal() else (1, 0, text) for text in re.split(r"(\d+)", name.lower())]
