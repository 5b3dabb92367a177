"""VideoSink: H.264 in MP4, MOV or Matroska, by PyAV; encoded by x264, or by NVENC if the GPU has it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import TypeVar

import av
import cv2
import numpy as np
from av.container import OutputContainer
from av.video.reformatter import ColorRange, Colorspace
from av.video.stream import VideoStream
from numpy.typing import NDArray

from core.errors import SinkError
from pipeline.hardware import NVENC, Choice, find_encoder, nvenc_for, one_line
from pipeline.sinks.base import Sink, open_file, reason
from pipeline.sinks.tracks import SourceTracks
from pipeline.types import Frame, Result

VIDEO_FORMATS: Mapping[str, str] = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}
# A killed process leaves every finished fragment playable: one each GOP_SIZE frames.
FRAGMENTS = {"movflags": "frag_keyframe+empty_moov+default_base_moof", "flush_packets": "1"}
GOP_SIZE = 48
# No B-frames: they would delay the first timestamp of a fragmented file by two frames.
# The smaller search and no transform of 8x8: less time at the same size and PSNR (measured in benchmarks/RESULTS.md).
X264 = {"preset": "veryfast", "crf": "21", "bf": "0", "x264-params": "me=dia:8x8dct=0"}
# The tag that Apple's players want of HEVC in MP4 and MOV.
HEVC_TAG = "hvc1"
FREE_TIME_BASE = Fraction(1, 90_000)  # for sources without their own


logger = logging.getLogger(__name__)

T = TypeVar("T")


class VideoSink(Sink):
    """H.264 in MP4, MOV or Matroska, yuv420p, with the source's timestamps and, of a file, its sound and chapters.

    The first frame fixes the size (odd sides grow by a pixel); later frames of another size are fitted into it.
    audio: copy the sound.
    encoder: "auto" encodes on an NVIDIA GPU if it can (`pipeline.hardware`; HEVC above 4096 pixels a side), "gpu"
        raises SinkError if it cannot. gpu: which one, as in `find_gpu`.
    """

    def __init__(self, path: Path, *, audio: bool = True, encoder: Choice = "auto", gpu: int = 0) -> None:
        if path.suffix.lower() not in VIDEO_FORMATS:
            raise ValueError(f"{path} has no known video suffix; expected one of {', '.join(VIDEO_FORMATS)}")
        self.path = path
        self._audio = audio
        self._encoder, self._gpu = encoder, gpu
        self._on_gpu = find_encoder(encoder, gpu).on_gpu
        self._file = open_file(path)
        self._output: tuple[OutputContainer, VideoStream] | None = None
        self._tracks: SourceTracks | None = None
        self._wh = (0, 0)
        self._time_base = FREE_TIME_BASE
        self._last_pts = -1
        self._interval = 0  # between the last two frames
        self._failed = False

    def write(self, result: Result, picture: NDArray[np.uint8]) -> None:
        frame = result.frame
        if self._output is None:
            self._output = self._guarded(lambda: self._start(frame))
        container, stream = self._output
        coded = _as_yuv(_fitted(picture, self._wh))
        # A stream may repeat or turn back a timestamp; a file may not.
        pts = max(round(Fraction(frame.time_s) / self._time_base), self._last_pts + 1)
        self._interval, self._last_pts = pts - self._last_pts, pts
        coded.pts, coded.time_base = pts, self._time_base
        tracks = self._tracks
        if tracks is not None:
            self._guarded(lambda: tracks.copy_until(frame.time_s))
        self._guarded(lambda: container.mux(stream.encode(coded)))

    def close(self) -> None:
        if self._file.closed:
            return
        output, self._output = self._output, None
        try:
            if output is not None and not self._failed:  # a muxer that failed must not be called again
                self._guarded(lambda: self._finish(*output))
        finally:
            if self._tracks is not None:
                self._tracks.close()
            self._file.close()
            if output is None:
                self.path.unlink(missing_ok=True)  # no frame came: an empty file plays nowhere

    def _start(self, frame: Frame) -> tuple[OutputContainer, VideoStream]:
        w, h = frame.wh
        self._wh = (w + w % 2, h + h % 2)
        self._time_base = frame.time_base or FREE_TIME_BASE
        if self._on_gpu:
            codec = nvenc_for(self._wh)
            try:
                return self._started(frame, codec, {**NVENC, "gpu": str(self._gpu)})
            except (av.error.FFmpegError, OSError, ValueError) as error:
                # A size that the card does not take, or more videos at once than it allows.
                words = f"{codec} does not take {self._wh[0]}x{self._wh[1]} ({one_line(error)})"
                if self._encoder == "gpu":
                    raise SinkError(f"{self.path}: {words}; use --encoder auto or cpu") from error
                logger.warning("%s is encoded on the CPU, not on the GPU: %s", self.path, words)
        return self._started(frame, "libx264", X264)

    def _started(self, frame: Frame, encoder: str, options: Mapping[str, str]) -> tuple[OutputContainer, VideoStream]:
        """A container with its header, and its opened encoder. Raises PyAV's error; an encoder that cannot be opened
        leaves the file empty.
        """
        kind = VIDEO_FORMATS[self.path.suffix.lower()]
        container = av.open(self._file, "w", format=kind, options={} if kind == "matroska" else FRAGMENTS)
        stream = container.add_stream(encoder, options=dict(options))
        assert isinstance(stream, VideoStream)
        stream.width, stream.height = self._wh
        stream.pix_fmt = "yuv420p"
        codec = stream.codec_context
        codec.time_base = stream.time_base = self._time_base
        codec.gop_size = GOP_SIZE
        codec.colorspace, codec.color_range = Colorspace.ITU601, ColorRange.MPEG  # what OpenCV converts to
        if codec.codec.canonical_name == "hevc" and kind != "matroska":
            codec.codec_tag = HEVC_TAG
        tracks = SourceTracks.of(frame.source, container, audio=self._audio)
        try:
            if tracks is not None:
                ratio = tracks.sample_aspect_ratio
                turned = frame.wh != tracks.stored_wh and frame.wh[::-1] == tracks.stored_wh
                codec.sample_aspect_ratio = 1 / ratio if turned else ratio
            codec.open()
            container.start_encoding()
        except BaseException:
            if tracks is not None:
                tracks.close()
            raise
        self._tracks = tracks
        return container, stream

    def _finish(self, container: OutputContainer, stream: VideoStream) -> None:
        if self._tracks is not None:
            self._tracks.finish(float(self._last_pts * self._time_base), float(self._interval * self._time_base))
        container.mux(stream.encode(None))
        container.close()

    def _guarded(self, work: Callable[[], T]) -> T:
        try:
            return work()
        except SinkError:
            raise
        except (av.error.FFmpegError, OSError) as error:
            self._failed = True
            raise SinkError(f"{self.path} cannot be written further: {reason(error)}") from error


def _as_yuv(picture: NDArray[np.uint8]) -> av.VideoFrame:
    """A picture with even sides as yuv420p."""
    # OpenCV converts in a third of the time that FFmpeg takes
    yuv = np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2YUV_I420), np.uint8)
    if picture.shape[0] % 4:  # PyAV's from_numpy_buffer takes such a picture for one that is two rows shorter
        return av.VideoFrame.from_ndarray(yuv, "yuv420p")
    return av.VideoFrame.from_numpy_buffer(yuv, "yuv420p")  # no copy: the array is not used again


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
