"""open_source: from what a user types to a Source; several files run in turn."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from pathlib import Path

from core.errors import SourceError
from pipeline.sources.base import (
    IMAGE_SUFFIXES,
    VIDEO_SUFFIXES,
    Source,
    is_browser,
    is_camera,
    is_image,
    is_stream,
    is_url,
    natural_order,
)
from pipeline.sources.camera import CameraSource, camera_index
from pipeline.sources.files import ImageSource, check_file
from pipeline.sources.loop import Loop
from pipeline.sources.names import public_name
from pipeline.sources.realtime import RealTime
from pipeline.types import Frame


def open_source(
    *sources: str | int | Path, realtime: bool = False, loop: bool = False, browser: Source | None = None
) -> Source:
    """One source out of what a user types: video files, URLs, cameras, images, folders, globs; several run in turn.

    A number is a camera. A folder or glob gives its images and videos in natural order. Every file is looked at now,
    so that a wrong one is reported before any work.
    realtime: play files at their own speed as if they were cameras, dropping what comes too fast.
    loop: play files again and again. browser: what the source `browser` stands for.
    Raises SourceError (missing, empty or unreadable) or ValueError (no source given).
    """
    parts = [part for source in sources for part in _expand(str(source))]
    if not parts or not all(parts):
        raise ValueError("no source given; expected a video, image, folder, URL or camera index")
    live = [part for part in parts if is_camera(part) or is_stream(part) or is_browser(part)]
    if live and len(parts) > 1:
        shown, others = public_name(live[0]), len(parts) - 1
        raise ValueError(f"{shown} is live and may never end; name it alone, without the other {others}")
    if live and loop:
        raise ValueError(f"--loop repeats files, and {public_name(live[0])} is live; leave it out")
    if is_browser(parts[0]):
        if browser is None:
            raise ValueError("the source browser is the camera of whoever opens the page; add --web 8000")
        return browser

    def open_parts() -> Source:
        return _open_part(parts[0]) if len(parts) == 1 else Chain(parts)

    source = Loop(open_parts) if loop else open_parts()
    return RealTime(source) if realtime and not source.live else source


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


def _expand(source: str) -> list[str]:
    if is_url(source) or is_camera(source) or is_browser(source) or not source:
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
        return CameraSource(camera_index(name))
    if is_image(name):
        return ImageSource(name)
    if not is_url(name):
        check_file(name)
    from pipeline.sources.video import VideoSource

    return VideoSource(name)
