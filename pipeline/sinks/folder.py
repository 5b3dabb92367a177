"""FolderSink: writes an annotated file for each source into one folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from core.errors import SinkError
from pipeline.sinks.base import Sink, reason
from pipeline.sinks.pictures import ImageSink
from pipeline.sinks.video import VideoSink
from pipeline.sources import is_camera, is_image, is_url
from pipeline.types import Result


class FolderSink(Sink):
    """Writes a file per source into one folder: `street.avi` becomes `street.mp4`, `a.jpg` stays `a.jpg`.

    side_by_side: frames of several sources alternate; else one source ends before the next begins. open_video: opens
    the sink of a video. finished: called with the name of a source when its file is complete, which is when the next
    source begins; not called for the last source.
    """

    def __init__(
        self,
        folder: Path,
        *,
        side_by_side: bool = False,
        open_video: Callable[[Path], Sink] = VideoSink,
        finished: Callable[[str], None] = lambda source: None,
    ) -> None:
        self.folder = folder
        self._finished = finished
        try:
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise SinkError(f"folder {folder} cannot be made: {reason(error)}") from error
        self._side_by_side = side_by_side
        self._open_video = open_video
        self._open: dict[str, Sink] = {}  # by source; at most one unless side_by_side
        self._last_index = -1
        self._names: set[str] = set()

    def write(self, result: Result, picture: NDArray[np.uint8]) -> None:
        frame = result.frame
        # the first frame of the next source may have been dropped; the same source may be played twice
        comes_again = not self._side_by_side and frame.index <= self._last_index
        if frame.source not in self._open or comes_again:
            if not self._side_by_side:
                ended = list(self._open)
                self.close()
                for source in ended:
                    self._finished(source)
            self._open[frame.source] = self._next(frame.source)
        self._last_index = frame.index
        self._open[frame.source].write(result, picture)

    def close(self) -> None:
        failures = []
        while self._open:
            _, sink = self._open.popitem()
            try:
                sink.close()
            except SinkError as error:  # raised below, after all are closed
                failures.append(error)
        if failures:
            raise failures[0]

    def _next(self, source: str) -> Sink:
        name = file_name(source)
        stem, suffix = Path(name).stem, Path(name).suffix
        for number in range(2, len(self._names) + 3):  # sources of the same name from different folders
            if name not in self._names:
                break
            name = f"{stem}-{number}{suffix}"
        self._names.add(name)
        path = self.folder / name
        if _same_file(path, source):
            raise SinkError(f"{path} is the input; choose another folder")
        return ImageSink(path) if is_image(name) else self._open_video(path)


def file_name(source: str) -> str:
    """The file name of a source's annotated copy in a folder."""
    if is_camera(source):
        return f"camera-{source}.mp4"
    if is_url(source):
        address = "".join(c if c.isalnum() else "-" for c in source.split("://", 1)[1].rsplit("@", 1)[-1])
        return f"{address.strip('-')[:80] or 'stream'}.mp4"
    path = Path(source)
    return path.name if is_image(source) else f"{path.stem}.mp4"


def _same_file(path: Path, source: str) -> bool:
    return path.exists() and not is_url(source) and Path(source).exists() and path.samefile(source)
