"""FolderSink: an annotated file for each source, in one folder."""

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
    """A file per source in one folder: `street.avi` becomes `street.mp4`, `a.jpg` stays `a.jpg`.

    side_by_side: the sources' frames come mixed; else one ends before the next begins. open_video: makes the sink of
    one video.
    finished: told of each source whose file is whole because another source came; of the last one nobody knows here.
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
        self._open: dict[str, Sink] = {}  # by source; one at a time unless they run side by side
        self._last_index = -1
        self._names: set[str] = set()

    def write(self, result: Result, picture: NDArray[np.uint8]) -> None:
        frame = result.frame
        # the first frame of the next source may have been dropped; the same source may come twice
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
            except SinkError as error:  # raised below, when all are closed
                failures.append(error)
        if failures:
            raise failures[0]

    def _next(self, source: str) -> Sink:
        name = file_name(source)
        stem, suffix = Path(name).stem, Path(name).suffix
        for number in range(2, len(self._names) + 3):  # two sources of one name, from two folders
            if name not in self._names:
                break
            name = f"{stem}-{number}{suffix}"
        self._names.add(name)
        path = self.folder / name
        if _same_file(path, source):
            raise SinkError(f"{path} is the input itself; save into another folder")
        return ImageSink(path) if is_image(name) else self._open_video(path)


def file_name(source: str) -> str:
    """The name under which a source's annotated copy is saved in a folder."""
    if is_camera(source):
        return f"camera-{source}.mp4"
    if is_url(source):
        words = "".join(c if c.isalnum() else "-" for c in source.split("://", 1)[1].rsplit("@", 1)[-1])
        return f"{words.strip('-')[:80] or 'stream'}.mp4"
    path = Path(source)
    return path.name if is_image(source) else f"{path.stem}.mp4"


def _same_file(path: Path, source: str) -> bool:
    return path.exists() and not is_url(source) and Path(source).exists() and path.samefile(source)
