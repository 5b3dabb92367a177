"""Where results go: video, pictures, JSON lines, a window. A sink opens its output when it is made.

`write` and `close` raise SinkError with the path; `close` finishes the file and may be called twice.
"""

from __future__ import annotations

import json
import os
import sys
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any, Self

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from engine.errors import SinkError
from pipeline.draw import draw_caption
from pipeline.sources import IMAGE_SUFFIXES, is_camera, is_image, is_url
from pipeline.types import People, Result

VIDEO_FORMATS: Mapping[str, str] = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}
# A killed process leaves every finished fragment playable: one each GOP_SIZE frames.
FRAGMENTS = {"movflags": "frag_keyframe+empty_moov+default_base_moof", "flush_packets": "1"}
GOP_SIZE = 48
# No B-frames: they would delay the first timestamp of a fragmented file by two frames.
X264 = {"preset": "veryfast", "crf": "21", "bf": "0"}
FREE_TIME_BASE = Fraction(1, 90_000)  # for sources without their own
LINE_DECIMALS, SCORE_DECIMALS = 2, 4


class Sink(ABC):
    """Takes every result, in order. picture: the annotated frame, (H, W, 3) uint8 BGR; a sink does not change it."""

    needs_picture = True

    @abstractmethod
    def write(self, result: Result, picture: NDArray[np.uint8]) -> None: ...

    @abstractmethod
    def close(self) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class VideoSink(Sink):
    """H.264 in MP4, MOV or Matroska, yuv420p, with the source's timestamps.

    The first frame fixes the size (odd sides grow by a pixel); later frames of another size are fitted into it.
    """

    def __init__(self, path: Path) -> None:
        if path.suffix.lower() not in VIDEO_FORMATS:
            raise ValueError(f"{path} has no known video suffix; expected one of {', '.join(VIDEO_FORMATS)}")
        self.path = path
        self._file = _open(path)
        self._container: Any = None
        self._stream: Any = None
        self._wh = (0, 0)
        self._time_base = FREE_TIME_BASE
        self._last_pts = -1
        self._failed = False

    def write(self, result: Result, picture: NDArray[np.uint8]) -> None:
        frame = result.frame
        if self._container is None:
            self._start(frame.wh, frame.time_base or FREE_TIME_BASE)
        coded = av.VideoFrame.from_ndarray(_fitted(picture, self._wh), "bgr24")
        # A stream may repeat or turn back a timestamp; a file may not.
        coded.pts = self._last_pts = max(round(Fraction(frame.time_s) / self._time_base), self._last_pts + 1)
        coded.time_base = self._time_base
        self._guarded(lambda: self._container.mux(self._stream.encode(coded)))

    def close(self) -> None:
        if self._file.closed:
            return
        container, self._container = self._container, None
        try:
            if container is not None and not self._failed:  # a muxer that failed must not be called again
                self._guarded(lambda: container.mux(self._stream.encode(None)))
                self._guarded(container.close)
        finally:
            self._file.close()
            if container is None:
                self.path.unlink(missing_ok=True)  # no frame came: an empty file plays nowhere

    def _start(self, frame_wh: tuple[int, int], time_base: Fraction) -> None:
        kind = VIDEO_FORMATS[self.path.suffix.lower()]
        self._container = av.open(self._file, "w", format=kind, options={} if kind == "matroska" else FRAGMENTS)
        self._wh = (frame_wh[0] + frame_wh[0] % 2, frame_wh[1] + frame_wh[1] % 2)
        self._time_base = time_base
        self._stream = self._container.add_stream("libx264", options=X264)
        self._stream.width, self._stream.height = self._wh
        self._stream.pix_fmt = "yuv420p"
        self._stream.codec_context.time_base = self._stream.time_base = time_base
        self._stream.codec_context.gop_size = GOP_SIZE

    def _guarded(self, work: Callable[[], object]) -> None:
        try:
            work()
        except (av.error.FFmpegError, OSError) as error:
            self._failed = True
            raise SinkError(f"{self.path} cannot be written further: {_reason(error)}") from error


class ImageSink(Sink):
    """One picture, in the format of its suffix."""

    def __init__(self, path: Path) -> None:
        if path.suffix.lower() not in IMAGE_SUFFIXES:
            raise ValueError(f"{path} has no known image suffix; expected one of {', '.join(sorted(IMAGE_SUFFIXES))}")
        self.path = path
        self._file = _open(path)
        self._written = False

    def write(self, result: Result, picture: NDArray[np.uint8]) -> None:
        done, coded = cv2.imencode(self.path.suffix, picture)
        if not done:
            raise SinkError(f"{self.path} cannot be encoded as {self.path.suffix}")
        try:
            self._file.seek(0)
            self._file.write(coded.tobytes())
        except OSError as error:
            raise SinkError(f"{self.path} cannot be written: {_reason(error)}") from error
        self._written = True

    def close(self) -> None:
        if not self._file.closed:
            self._file.close()
            if not self._written:
                self.path.unlink(missing_ok=True)


class FolderSink(Sink):
    """A file per source in one folder: `street.avi` becomes `street.mp4`, `a.jpg` stays `a.jpg`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise SinkError(f"folder {folder} cannot be made: {_reason(error)}") from error
        self._current: Sink | None = None
        self._last = ("", -1)  # source and index of the last frame
        self._names: set[str] = set()

    def write(self, result: Result, picture: NDArray[np.uint8]) -> None:
        frame = result.frame
        # the first frame of the next source may have been dropped; the same source may come twice
        if self._current is None or frame.source != self._last[0] or frame.index <= self._last[1]:
            self.close()
            self._current = self._next(frame.source)
        self._last = (frame.source, frame.index)
        self._current.write(result, picture)

    def close(self) -> None:
        if self._current is not None:
            current, self._current = self._current, None
            current.close()

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
        return ImageSink(path) if is_image(name) else VideoSink(path)


class JsonSink(Sink):
    """One line of JSON a frame; each line is one write, so that a reader never sees half of one."""

    needs_picture = False

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = _open(path)

    def write(self, result: Result, picture: NDArray[np.uint8]) -> None:
        line = json_line(result).encode() + b"\n"
        try:
            written = self._file.write(line)
        except OSError as error:
            raise SinkError(f"{self.path} cannot be written further: {_reason(error)}") from error
        if written != len(line):
            raise SinkError(f"{self.path} cannot be written further: only {written} of {len(line)} bytes fitted")

    def close(self) -> None:
        self._file.close()


class WindowSink(Sink):
    """A live window. `quit` turns true when the user presses q or Escape, or closes it."""

    def __init__(self, title: str) -> None:
        check_display()
        self.quit = False
        self._title = title
        self._shown = False
        self._canvas: NDArray[np.uint8] = np.empty((0, 0, 3), np.uint8)
        self._times: deque[float] = deque(maxlen=30)  # of the last frames: their rate is shown

    def write(self, result: Result, picture: NDArray[np.uint8]) -> None:
        try:
            if not self._shown:
                cv2.namedWindow(self._title, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO)
                cv2.resizeWindow(self._title, *result.frame.wh)
                self._shown = True
            cv2.imshow(self._title, self._captioned(picture, len(result.people)))
            key = cv2.waitKey(1) & 0xFF
            closed = cv2.getWindowProperty(self._title, cv2.WND_PROP_VISIBLE) < 1
        except cv2.error as error:
            raise SinkError(
                f"no window can be shown: {' '.join(str(error).split())}; use --save FILE instead"
            ) from error
        self.quit = self.quit or closed or key in (ord("q"), 27)

    def _captioned(self, picture: NDArray[np.uint8], people: int) -> NDArray[np.uint8]:
        self._times.append(time.perf_counter())
        if self._canvas.shape != picture.shape:
            self._canvas = np.empty_like(picture)
        np.copyto(self._canvas, picture)  # other sinks get it without the caption
        elapsed = self._times[-1] - self._times[0]
        rate = f"{(len(self._times) - 1) / elapsed:.0f} FPS, " if elapsed > 0 else ""
        return draw_caption(self._canvas, f"{rate}{people} people")

    def close(self) -> None:
        if self._shown:
            self._shown = False
            cv2.destroyAllWindows()


def check_display() -> None:
    """Without a display cv2.imshow ends the process by a signal, so this raises SinkError before."""
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise SinkError("no window can be shown: DISPLAY and WAYLAND_DISPLAY are not set; use --save FILE instead")


def json_line(result: Result) -> str:
    """The frame as JSON: coordinates rounded to 0.01 px, scores to 0.0001; no newline."""
    frame, people = result.frame, result.people
    return json.dumps(
        {
            "source": frame.source,
            "frame": frame.index,
            "time_s": round(frame.time_s, 6),
            "people": _people(people),
        }
    )


def file_name(source: str) -> str:
    """The name under which a source's annotated copy is saved in a folder."""
    if is_camera(source):
        return f"camera-{source}.mp4"
    if is_url(source):
        words = "".join(c if c.isalnum() else "-" for c in source.split("://", 1)[1].rsplit("@", 1)[-1])
        return f"{words.strip('-')[:80] or 'stream'}.mp4"
    path = Path(source)
    return path.name if is_image(source) else f"{path.stem}.mp4"


def _people(people: People) -> list[dict[str, Any]]:
    boxes = np.round(people.boxes().astype(np.float64), LINE_DECIMALS).tolist()
    xy = np.round(people.keypoints.astype(np.float64), LINE_DECIMALS).tolist()
    joint_scores = np.round(people.keypoint_scores.astype(np.float64), SCORE_DECIMALS).tolist()
    scores = np.round(people.scores.astype(np.float64), SCORE_DECIMALS).tolist()
    return [
        {
            "score": scores[p],
            "bbox": boxes[p],
            "keypoints": [[x, y, s] for (x, y), s in zip(xy[p], joint_scores[p], strict=True)],
        }
        for p in range(len(people))
    ]


def _fitted(picture: NDArray[np.uint8], wh: tuple[int, int]) -> NDArray[np.uint8]:
    """The picture in the video's size: an odd side repeats its last line; another size is scaled, centred on black."""
    h, w = picture.shape[:2]
    if (w, h) == wh:
        return picture
    if 0 <= wh[0] - w <= 1 and 0 <= wh[1] - h <= 1:
        grown = cv2.copyMakeBorder(picture, 0, wh[1] - h, 0, wh[0] - w, cv2.BORDER_REPLICATE)
        return np.asarray(grown, np.uint8)
    factor = min(wh[0] / w, wh[1] / h)
    inner = (max(1, round(w * factor)), max(1, round(h * factor)))
    small = cv2.resize(picture, inner, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR)
    canvas = np.zeros((wh[1], wh[0], 3), np.uint8)
    left, top = (wh[0] - inner[0]) // 2, (wh[1] - inner[1]) // 2
    canvas[top : top + inner[1], left : left + inner[0]] = small
    return canvas


def _open(path: Path) -> Any:
    """Unbuffered: what was written has left the process."""
    try:
        return path.open("wb", buffering=0)
    except OSError as error:
        raise SinkError(f"{path} cannot be written: {_reason(error)}") from error


def _same_file(path: Path, source: str) -> bool:
    return path.exists() and not is_url(source) and Path(source).exists() and path.samefile(source)


def _reason(error: BaseException) -> str:
    return " ".join(str(getattr(error, "strerror", None) or error).split())
