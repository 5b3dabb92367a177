"""VideoSink: H.264 in MP4, MOV or Matroska, by PyAV."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from av.container import OutputContainer
from av.video.stream import VideoStream
from numpy.typing import NDArray

from core.errors import SinkError
from pipeline.sinks.base import Sink, open_file, reason
from pipeline.types import Result

VIDEO_FORMATS: Mapping[str, str] = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}
# A killed process leaves every finished fragment playable: one each GOP_SIZE frames.
FRAGMENTS = {"movflags": "frag_keyframe+empty_moov+default_base_moof", "flush_packets": "1"}
GOP_SIZE = 48
# No B-frames: they would delay the first timestamp of a fragmented file by two frames.
X264 = {"preset": "veryfast", "crf": "21", "bf": "0"}
FREE_TIME_BASE = Fraction(1, 90_000)  # for sources without their own


class VideoSink(Sink):
    """H.264 in MP4, MOV or Matroska, yuv420p, with the source's timestamps.

    The first frame fixes the size (odd sides grow by a pixel); later frames of another size are fitted into it.
    """

    def __init__(self, path: Path) -> None:
        if path.suffix.lower() not in VIDEO_FORMATS:
            raise ValueError(f"{path} has no known video suffix; expected one of {', '.join(VIDEO_FORMATS)}")
        self.path = path
        self._file = open_file(path)
        self._output: tuple[OutputContainer, VideoStream] | None = None
        self._wh = (0, 0)
        self._time_base = FREE_TIME_BASE
        self._last_pts = -1
        self._failed = False

    def write(self, result: Result, picture: NDArray[np.uint8]) -> None:
        frame = result.frame
        if self._output is None:
            self._output = self._start(frame.wh, frame.time_base or FREE_TIME_BASE)
        container, stream = self._output
        coded = av.VideoFrame.from_ndarray(_fitted(picture, self._wh), "bgr24")
        # A stream may repeat or turn back a timestamp; a file may not.
        coded.pts = self._last_pts = max(round(Fraction(frame.time_s) / self._time_base), self._last_pts + 1)
        coded.time_base = self._time_base
        self._guarded(lambda: container.mux(stream.encode(coded)))

    def close(self) -> None:
        if self._file.closed:
            return
        output, self._output = self._output, None
        try:
            if output is not None and not self._failed:  # a muxer that failed must not be called again
                container, stream = output
                self._guarded(lambda: container.mux(stream.encode(None)))
                self._guarded(container.close)
        finally:
            self._file.close()
            if output is None:
                self.path.unlink(missing_ok=True)  # no frame came: an empty file plays nowhere

    def _start(self, frame_wh: tuple[int, int], time_base: Fraction) -> tuple[OutputContainer, VideoStream]:
        kind = VIDEO_FORMATS[self.path.suffix.lower()]
        container = av.open(self._file, "w", format=kind, options={} if kind == "matroska" else FRAGMENTS)
        self._wh = (frame_wh[0] + frame_wh[0] % 2, frame_wh[1] + frame_wh[1] % 2)
        self._time_base = time_base
        stream = container.add_stream("libx264", options=X264)
        stream.width, stream.height = self._wh
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = stream.time_base = time_base
        stream.codec_context.gop_size = GOP_SIZE
        return container, stream

    def _guarded(self, work: Callable[[], object]) -> None:
        try:
            work()
        except (av.error.FFmpegError, OSError) as error:
            self._failed = True
            raise SinkError(f"{self.path} cannot be written further: {reason(error)}") from error


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
