"""Outputs: all sinks of one run. Pictures are drawn once for all sinks; paths are checked against the sources."""

from __future__ import annotations

import os
import stat
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from core.errors import SinkError, StageError, describe
from pipeline.channel import Cancelled, Channel
from pipeline.draw import draw_people, warm_up
from pipeline.hardware import Choice
from pipeline.sinks import (
    VIDEO_FORMATS,
    FolderSink,
    ImageSink,
    JsonSink,
    Sink,
    VideoSink,
    WindowSink,
    check_table,
    file_name,
    open_table,
)
from pipeline.sinks.web import WebSink
from pipeline.sources import IMAGE_SUFFIXES, is_image, is_url
from pipeline.stages import frame_name
from pipeline.stats import Recorder
from pipeline.types import Result

CAPACITY = 2  # results that wait for each of the two threads


class Outputs:
    """Draws each result once if any sink needs a picture, and passes it to every sink.

    Drawing and writing have a thread each, a few results behind the caller, so that the pipeline does not wait for an
    encoder. With a window, or without `overlap`, both run in the caller's thread, as windows require.
    """

    def __init__(self, sinks: Sequence[Sink], recorder: Recorder, *, overlap: bool = True) -> None:
        self._sinks = list(sinks)
        self._recorder = recorder
        self._needs_picture = any(sink.needs_picture for sink in self._sinks)
        self._windows = [sink for sink in self._sinks if isinstance(sink, WindowSink)]
        self._overlap = overlap and not self._windows
        self._canvases: deque[NDArray[np.uint8]] = deque()  # those not in use
        self._results: Channel[Result] = Channel(CAPACITY)
        self._drawn: Channel[tuple[Result, NDArray[np.uint8]]] = Channel(CAPACITY)
        self._failure: Exception | None = None
        self._threads: list[threading.Thread] = []
        if self._needs_picture:
            warm_up()

    def __len__(self) -> int:
        return len(self._sinks)

    @property
    def quit(self) -> bool:
        """Whether the user closed a window."""
        return any(window.quit for window in self._windows)

    def write(self, result: Result) -> None:
        """Pass a result to the sinks. Raises the first error of this result or an earlier one, once: SinkError or
        StageError with the frame's name."""
        if not self._overlap:
            self._put(*self._draw(result))
            return
        if self._sinks and not self._threads:
            self._threads = [
                threading.Thread(target=self._draw_all, name="pose-draw", daemon=True),
                threading.Thread(target=self._put_all, name="pose-outputs", daemon=True),
            ]
            for thread in self._threads:
                thread.start()
        try:
            if self._threads:
                self._results.put(result)
        except Cancelled:
            self._raise_failure()

    def set_end_text(self, end_text: str) -> None:
        """Set the text that an open page shows after `close`."""
        for sink in self._sinks:
            if isinstance(sink, WebSink):
                sink.end_text = end_text

    def close(self) -> None:
        """Write the waiting results and close every sink, also if one fails; then raise the first unreported error."""
        self._results.close()
        for thread in self._threads:
            thread.join()
        failures: list[Exception] = []
        start = time.perf_counter()
        sinks, self._sinks = self._sinks, []
        for sink in sinks:
            try:
                sink.close()
            except Exception as error:  # raised below
                failures.append(error)
        if sinks:
            self._recorder.record("encode", start, time.perf_counter())
        self._raise_failure()
        if failures:
            raise failures[0]

    def _raise_failure(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _draw_all(self) -> None:
        try:
            for result in self._results:
                self._drawn.put(self._draw(result))
        except Cancelled:
            pass
        except Exception as error:  # raised by the next `write`, or by `close`
            self._failure = error
        finally:
            self._drawn.close()
            self._results.cancel()

    def _put_all(self) -> None:
        try:
            for result, picture in self._drawn:
                self._put(result, picture)
        except Exception as error:  # as above
            self._failure = error
        finally:
            self._drawn.cancel()

    def _draw(self, result: Result) -> tuple[Result, NDArray[np.uint8]]:
        """The result and its annotated picture; the frame is not changed."""
        image = result.frame.image
        if not self._needs_picture:
            return result, image
        start = time.perf_counter()
        try:
            canvas = self._canvas(image)
            np.copyto(canvas, image)
            picture = draw_people(canvas, result.people)
        except Exception as error:
            raise StageError(f"drawing failed on {frame_name(result.frame)}: {describe(error)}") from error
        self._recorder.record("draw", start, time.perf_counter())
        return result, picture

    def _put(self, result: Result, picture: NDArray[np.uint8]) -> None:
        start = time.perf_counter()
        try:
            for sink in self._sinks:
                sink.write(result, picture)
        except SinkError as error:
            raise SinkError(f"{error} ({frame_name(result.frame)})") from error
        except Exception as error:
            raise StageError(f"output failed on {frame_name(result.frame)}: {describe(error)}") from error
        if self._sinks:
            self._recorder.record("encode", start, time.perf_counter())
        if self._needs_picture:
            self._canvases.append(picture)

    def _canvas(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """An unused canvas of the image's shape."""
        while self._canvases:
            canvas = self._canvases.popleft()
            if canvas.shape == image.shape:
                return canvas
        return np.empty_like(image)


def check_outputs(
    parts: Sequence[str],
    *,
    save: Path | None,
    others: Sequence[Path | None],
    table: Path | None = None,
    model: str | None = None,
) -> None:
    """Check output paths before a model is loaded. parts: the sources' names. others: other files than `save`, `table`.

    Raises ValueError for an output that is an input, the model or another output, also through links; for a wrong
    suffix; and for a folder in place of a file. Raises EngineError if the package for a table is not installed.
    """
    if table is not None:
        check_table(table)
        others = [*others, table]
    files = [path for path in others if path is not None]
    if save is not None:
        if is_folder(save):
            files += [save / file_name(part) for part in parts] if save.is_dir() else []
        else:
            _check_suffix(save, parts)
            files.append(save)
    inputs = {_identity(part) for part in parts if not is_url(part)}
    seen: set[object] = set()
    for path in files:
        real = _identity(path)
        if model is not None and real == _identity(model):
            raise ValueError(f"output {path} is the model; choose another name")
        if real in inputs:
            raise ValueError(f"output {path} is the input; choose another name")
        if real in seen and not (save is not None and path.parent == save):  # a FolderSink numbers equal names
            raise ValueError(f"output {path} is given twice; choose another name")
        seen.add(real)
    for path in [*(path for path in others if path is not None), *([save] if save is not None else [])]:
        if path.is_dir() and path is not save:
            raise ValueError(f"output {path} is a folder; expected a file name")
        if not path.parent.is_dir():
            raise ValueError(f"output {path} cannot be written: folder {path.parent} does not exist; create it first")


def _identity(path: str | Path) -> object:
    """A value that is equal for two paths of the same file, also through links."""
    try:
        found = Path(path).stat()
    except OSError:
        return os.path.realpath(path)
    return (found.st_dev, found.st_ino) if stat.S_ISREG(found.st_mode) else os.path.realpath(path)


def open_sinks(
    *,
    save: Path | None,
    json: Path | None,
    show: str | None,
    table: Path | None = None,
    side_by_side: bool = False,
    audio: bool = True,
    encoder: Choice = "auto",
    gpu: int = 0,
    finished: Callable[[str], None] = lambda source: None,
) -> list[Sink]:
    """Open the sinks; if one cannot be opened, those before it are closed again.

    show: the window's title. audio, encoder, gpu: of videos, as in VideoSink. side_by_side: several sources at the same
    time, with a window and file for each. finished: as in FolderSink, if `save` is a folder.
    """
    sinks: list[Sink] = []
    with ExitStack() as stack:  # closes the opened sinks if one cannot be opened
        if show is not None:
            sinks.append(stack.enter_context(WindowSink(None if side_by_side else show)))
        if save is not None:
            open_video = partial(VideoSink, audio=audio, encoder=encoder, gpu=gpu)
            sink = _save_sink(save, open_video, side_by_side=side_by_side, finished=finished)
            sinks.append(stack.enter_context(sink))
        if json is not None:
            sinks.append(stack.enter_context(JsonSink(json)))
        if table is not None:
            sinks.append(stack.enter_context(open_table(table)))
        stack.pop_all()
    return sinks


def _save_sink(
    save: Path, open_video: Callable[[Path], Sink], *, side_by_side: bool, finished: Callable[[str], None]
) -> Sink:
    if is_folder(save):
        return FolderSink(save, side_by_side=side_by_side, open_video=open_video, finished=finished)
    return ImageSink(save) if save.suffix.lower() in IMAGE_SUFFIXES else open_video(save)


def is_folder(save: Path) -> bool:
    """Whether the --save argument is a folder."""
    return save.is_dir() or not save.suffix


def _check_suffix(save: Path, parts: Sequence[str]) -> None:
    if len(parts) > 1:
        raise ValueError(f"--save {save} is one file, but there are {len(parts)} sources; give a folder")
    expected = IMAGE_SUFFIXES if is_image(parts[0]) else VIDEO_FORMATS.keys()
    if save.suffix.lower() not in expected:
        kind = "an image" if is_image(parts[0]) else "a video"
        raise ValueError(
            f"--save {save}: {parts[0]} is {kind}; expected one of {', '.join(sorted(expected))}, or a folder"
        )
