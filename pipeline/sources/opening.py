"""open_source: opens the Source of a file, folder, glob, URL or camera; several files run one after another."""

from __future__ import annotations

import glob
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Self

from core.errors import PartsFailed, SourceError
from engine.device import Device
from pipeline.hardware import Choice, find_decoder
from pipeline.sources.base import (
    IMAGE_SUFFIXES,
    VIDEO_SUFFIXES,
    Source,
    is_browser,
    is_camera,
    is_http,
    is_image,
    is_stream,
    is_url,
    natural_order,
)
from pipeline.sources.camera import CameraMode, CameraSource, camera_index
from pipeline.sources.files import ImageSource, check_file
from pipeline.sources.loop import Loop
from pipeline.sources.names import public_name
from pipeline.sources.realtime import RealTime
from pipeline.sources.reconnect import Reconnecting
from pipeline.sources.several import Several
from pipeline.types import Frame

logger = logging.getLogger(__name__)

MAX_LIVE_SOURCES = 64  # each has a thread and a decoder

OpenPart = Callable[[str], Source]


def open_source(
    *sources: str | int | Path,
    realtime: bool = False,
    loop: bool = False,
    reconnect: bool = False,
    camera: CameraMode | None = None,
    browser: Source | None = None,
    decoder: Choice = "auto",
    gpu: int = 0,
) -> Source:
    """Open video files, URLs, cameras, images, folders and globs as one source.

    A number is a camera. A folder or glob gives its images and videos in natural order. Every file is checked now, so
    that a wrong one is reported before any work. Several files run one after another; several live sources, and videos
    with `realtime`, run at the same time (`Several`). An http source is live if it has no end.
    realtime: play files at their own speed like a camera, and drop frames if the pipeline is slower.
    loop: repeat files. camera: the mode to set on cameras. browser: the source that the name `browser` stands for.
    reconnect: open a camera or stream again when it fails, and wait for it if it cannot be opened now. Of several live
    sources, one that was opened once is always opened again.
    decoder, gpu: of videos and streams, as VideoSource's.
    Raises SourceError (missing, empty or unreadable) or ValueError (none given, or a combination that cannot run).
    """
    parts = [part for source in sources for part in _expand(str(source))]
    if not parts or not all(parts):
        raise ValueError("no source given; expected a video, image, folder, URL or camera index")
    if decoder != "auto":
        find_decoder(decoder, gpu)  # report an error now, since Reconnecting would retry without end
    open_any = partial(_open_part, camera=camera, decoder=decoder, gpu=gpu)
    with _Opening(open_any, single=len(parts) == 1) as open_part:
        live = [part for part in parts if open_part.is_live(part, waits=reconnect)]
        if live and loop and len(live) == len(parts):
            raise ValueError(f"--loop repeats files, and {public_name(live[0])} is live; omit --loop")
        if len(parts) > 1 and (live or (realtime and not any(is_image(part) for part in parts))):
            open_live = partial(_open_live, open_part, reconnect=True, wait_for_first=reconnect, browser=browser)
            return _open_several(parts, live, open_part, open_live, realtime=realtime, loop=loop)
        if live:
            return _open_live(open_part, live[0], reconnect=reconnect, wait_for_first=reconnect, browser=browser)

        def open_parts() -> Source:
            return open_part(parts[0]) if len(parts) == 1 else Chain(parts, open_part)

        source = Loop(open_parts) if loop else open_parts()
        return RealTime(source) if realtime else source


def is_video(name: str) -> bool:
    """Whether a source of this name is decoded by FFmpeg: a video file or a stream."""
    return not (is_camera(name) or is_browser(name) or is_image(name))


class _Opening:
    """Opens parts. Those that `is_live` left open are used once, or closed at the end of `with`.

    single: the run has one part only.
    """

    def __init__(self, open_part: OpenPart, *, single: bool) -> None:
        self._open_part, self._single = open_part, single
        self._left_open: dict[str, Source] = {}

    def __call__(self, part: str) -> Source:
        return self._left_open.pop(part, None) or self._open_part(part)

    def is_live(self, part: str, *, waits: bool) -> bool:
        """Whether a part's frames come in real time; an http source is opened to tell.

        It stays open if it is live or the only part: a camera may take one client at a time.
        waits: take an http source that cannot be opened now for live, instead of raising SourceError.
        """
        if not is_http(part):
            return is_camera(part) or is_stream(part) or is_browser(part)
        if part in self._left_open:
            return self._left_open[part].live
        try:
            source = self._open_part(part)
        except SourceError:
            if not waits:
                raise
            return True
        if source.live or self._single:
            self._left_open[part] = source
        else:
            source.close()
        return source.live

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        while self._left_open:
            self._left_open.popitem()[1].close()


def _open_several(
    parts: Sequence[str],
    live: Sequence[str],
    open_part: OpenPart,
    open_live: OpenPart,
    *,
    realtime: bool,
    loop: bool,
) -> Several:
    files = [part for part in parts if part not in live]
    if files and not realtime:
        raise ValueError(f"{public_name(files[0])} is a file among live sources; add --realtime, or give it alone")
    if len(parts) > MAX_LIVE_SOURCES:
        raise ValueError(f"{len(parts)} live sources; expected at most {MAX_LIVE_SOURCES}")
    if len(set(parts)) < len(parts):
        twice = next(part for part in parts if parts.count(part) > 1)
        raise ValueError(f"{public_name(twice)} is given twice; live sources must differ")
    with ExitStack() as stack:  # closes the opened sources if one cannot be opened
        opened: list[Source] = []
        for part in parts:
            if part in live:
                source = open_live(part)
            else:
                source = RealTime(Loop(partial(open_part, part)) if loop else open_part(part))
            opened.append(stack.enter_context(source))
        several = Several(opened)
        stack.pop_all()
    return several


def _open_live(
    open_part: OpenPart, part: str, *, reconnect: bool, wait_for_first: bool, browser: Source | None
) -> Source:
    if is_browser(part):
        if browser is None:
            raise ValueError("the source browser is the camera of the page's visitor; add --web 8000")
        return browser  # it waits for a visitor itself

    def open_again() -> Source:
        source = open_part(part)
        if not source.live:  # a playlist that has got its end, which would be played from its start
            source.close()
            raise SourceError(f"{public_name(part)} is not live any more: it gives a recording")
        return source

    return Reconnecting(public_name(part), open_again, wait_for_first=wait_for_first) if reconnect else open_again()


class Chain(Source):
    """Several sources, one after another. Frame.source and Frame.index are those of each source.

    After one that fails, the next follows, with a warning; the last frame is then followed by PartsFailed.
    """

    def __init__(self, names: Sequence[str], open_part: OpenPart) -> None:
        self.name = f"{len(names)} sources"
        self.failed: list[str] = []
        self._names, self._open_part = names, open_part
        self._device: Device | None = None
        self._current: Source | None = None
        self._interrupted = False
        counts: list[int | None] = []
        for name in names:
            with open_part(name) as part:
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
            try:
                with self._open_part(name) as self._current:
                    if self._device is not None:
                        self._current.leave_on(self._device)
                    yield from self._current
            except SourceError as error:
                self.failed.append(name)
                logger.warning("%s", error)
        if self.failed:
            listed = ", ".join(self.failed[:3]) + (", ..." if len(self.failed) > 3 else "")
            raise PartsFailed(f"{len(self.failed)} of {self.name} could not be read to the end: {listed}")

    def leave_on(self, device: Device) -> None:
        self._device = device

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
        found = [
            str(p)
            for p in path.iterdir()
            if p.suffix.lower() in IMAGE_SUFFIXES | VIDEO_SUFFIXES and p.is_file() and not p.name.startswith(".")
        ]
        if not found:
            raise SourceError(f"folder {source} holds no images or videos")
        return sorted(found, key=natural_order)
    if not path.exists() and glob.has_magic(source):
        found = [name for name in glob.glob(source, recursive=True) if Path(name).is_file()]  # noqa: PTH207
        if not found:
            raise SourceError(f"no file matches {source}")
        return sorted(found, key=natural_order)
    return [source]


def _open_part(name: str, *, camera: CameraMode | None, decoder: Choice, gpu: int) -> Source:
    if is_camera(name):
        return CameraSource(camera_index(name), camera)
    if is_image(name):
        return ImageSource(name)
    if not is_url(name):
        check_file(name)
    from pipeline.sources.video import VideoSource

    video = VideoSource(name, decoder=decoder, gpu=gpu)
    return RealTime(video) if video.comes_in_pieces else video  # else most of each piece would be dropped
