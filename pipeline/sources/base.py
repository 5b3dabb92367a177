"""Source: the base class of all sources, and functions that tell the kind of a source from its name."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

from engine.device import Device
from pipeline.types import Frame

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
BROWSER = "browser"
HTTP_SCHEMES = frozenset({"http", "https"})
STREAM_SCHEMES = frozenset({"rtmp", "rtmps", "rtp", "rtsp", "rtsps", "srt", "udp"})
VIDEO_SUFFIXES = frozenset(
    {
        *(".3gp", ".avi", ".flv", ".gif", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".mxf"),
        *(".ogv", ".ts", ".vob", ".webm", ".wmv"),
    }
)


class Source(ABC):
    """Gives frames once, in order. Iterate in one thread; `interrupt` may be called from another; close it afterwards.

    name: as the user gave it. live: frames come in real time, and are dropped if the pipeline is slower.
    frame_count: the number of frames, if known before reading (a container may be wrong).
    frame_wh: width and height of the first frame, if known before reading.
    keeps_newest: the source itself holds its newest frames until they are read, and drops older ones.
    dropped: number of frames that the source dropped. failed: names of its parts that could not be read to their end.
    """

    name: str = ""
    live: bool = False
    frame_count: int | None = None
    frame_wh: tuple[int, int] | None = None
    keeps_newest: bool = False
    dropped: int = 0
    failed: Sequence[str] = ()

    @property
    def is_single_camera(self) -> bool:
        """Whether each frame should go through the network alone, for the lowest latency: one live source."""
        return self.live and not self.keeps_newest

    @property
    def parts(self) -> tuple[str, ...]:
        """The values of `Frame.source` in its frames, one for each source that it combines."""
        return (self.name,)

    @abstractmethod
    def __iter__(self) -> Iterator[Frame]:
        """Raises SourceError if the source cannot be read further."""

    def batches(self, size: int) -> Iterator[list[Frame]]:
        """The frames in lists of up to `size` frames of one layout. A failure is raised after the frames before it."""
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
            if batch and frame.layout != batch[0].layout:
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

    def leave_on(self, device: Device) -> None:  # noqa: B027  (most have their pictures in host memory)
        """The reader takes pictures in this device's memory too. Called before the first frame, if at all."""

    def interrupt(self) -> None:  # noqa: B027  (most sources never wait)
        """End a wait of the iterating thread, if it waits. May be called from any thread."""

    def close(self) -> None:  # noqa: B027  (an image has nothing to close)
        """Release everything. May be called twice, but not while another thread iterates."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def is_image(name: str) -> bool:
    """Whether a source of this name is a still image."""
    return not is_url(name) and Path(name).suffix.lower() in IMAGE_SUFFIXES


def is_camera(name: str) -> bool:
    return name.isdecimal()


def is_browser(name: str) -> bool:
    """Whether the source is the camera of the page's visitor."""
    return name == BROWSER


def is_url(name: str) -> bool:
    return re.match(r"[a-z][a-z0-9+.-]+://", name, re.IGNORECASE) is not None


def is_stream(name: str) -> bool:
    """Whether the URL is that of a live stream, whose frames come in real time, by its scheme."""
    return is_url(name) and _scheme(name) in STREAM_SCHEMES


def is_http(name: str) -> bool:
    """Whether the URL is of a web server: a film, or a live stream (MJPEG, HLS), as its container says when opened."""
    return is_url(name) and _scheme(name) in HTTP_SCHEMES


def _scheme(url: str) -> str:
    return url.split("://", maxsplit=1)[0].lower()


def natural_order(name: str) -> list[tuple[int, int, str]]:
    """Sort key that puts frame2 before frame10."""
    return [(0, int(text), "") if text.isdecimal() else (1, 0, text) for text in re.split(r"(\d+)", name.lower())]
