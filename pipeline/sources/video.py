"""VideoSource: video files and network streams, by PyAV."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from core.errors import SourceError
from pipeline.sources.base import Source, is_stream, is_url
from pipeline.sources.names import public_name
from pipeline.sources.pipe import PipeReader, is_pipe
from pipeline.sources.pixels import deinterlaced, to_bgr
from pipeline.sources.truncation import is_cut_short
from pipeline.types import Frame

logger = logging.getLogger(__name__)

OPEN_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 10.0


class VideoSource(Source):
    """A file or URL. Frames are upright, with the container's timestamps; a live stream drops what it cannot decode."""

    def __init__(
        self, name: str, *, open_timeout_s: float = OPEN_TIMEOUT_S, read_timeout_s: float = READ_TIMEOUT_S
    ) -> None:
        self.name = public_name(name)
        self.live = is_stream(name)
        self._read_timeout_s = read_timeout_s
        # RTSP over TCP: over UDP, lost packets tear the picture
        options = {"rtsp_transport": "tcp"} if name.lower().startswith("rtsp") else {}
        timeout = (open_timeout_s, read_timeout_s) if is_url(name) else None
        started = time.monotonic()
        self._pipe: PipeReader | None = None
        try:
            self._pipe = PipeReader(name) if not is_url(name) and is_pipe(name) else None
            # "file:", or FFmpeg takes what stands before a colon in a file's name for a protocol
            where = self._pipe or (name if is_url(name) else f"file:{name}")
            self._container = av.open(where, "r", options=options, timeout=timeout)
        except (av.error.FFmpegError, OSError, ValueError) as error:
            waited = time.monotonic() - started
            if is_url(name) and waited >= open_timeout_s:
                raise SourceError(f"{self.name} did not answer within {open_timeout_s:g} s") from error
            if self._pipe is not None:
                self._pipe.close()
            raise SourceError(f"{self.name} cannot be opened: {_reason(error)}") from error
        if not self._container.streams.video or self._container.format.name == "tty":  # tty: FFmpeg draws text files
            self.close()
            raise SourceError(f"{self.name} holds no video")
        self._stream = self._container.streams.video[0]
        self._cut_short = self._pipe is None and not is_url(name) and is_cut_short(Path(name))
        # Frame threads decode a file faster; they would hold a live stream's frames back, and lose the last ones
        # before a broken packet.
        self._stream.thread_type = "SLICE" if self.live or self._cut_short else "AUTO"
        if self._stream.codec_context is None:
            self.close()
            raise SourceError(f"{self.name} cannot be opened: its header does not say how its video is coded")
        if self._stream.codec_context.width <= 0:
            self.close()
            raise SourceError(f"{self.name} holds no readable video: its header has no frame size")
        self.frame_count = None if self.live else self._expected_frames()
        wh = (self._stream.codec_context.width, self._stream.codec_context.height)
        once = is_url(name) or self._pipe is not None  # what cannot be opened a second time
        lies_on_its_side = not once and _quarter_turns(_rotation_of(name)) % 2 == 1
        self.frame_wh = wh[::-1] if lies_on_its_side else wh

    def __iter__(self) -> Iterator[Frame]:
        reformatter = VideoReformatter()
        time_base = self._stream.time_base or Fraction(1, 90_000)
        interval = 1 / Fraction(self._stream.average_rate or self._stream.guessed_rate or 25)
        first_s: Fraction | None = None
        time_s = Fraction(0)
        for index, decoded in enumerate(deinterlaced(self._decoded())):
            if decoded.pts is not None:
                at = decoded.pts * (decoded.time_base or time_base)  # a filter has a unit of its own
                first_s = at if first_s is None else first_s
                time_s = at - first_s
            elif index:
                time_s += interval  # a stream without timestamps, such as raw H.264
            image = _upright(to_bgr(decoded, reformatter), decoded.rotation)
            yield Frame(image, index, float(time_s), time.monotonic(), self.name, time_base)

    def interrupt(self) -> None:
        if self._pipe is not None:
            self._pipe.interrupt()

    def close(self) -> None:
        self._container.close()
        if self._pipe is not None:
            self._pipe.close()

    def _decoded(self) -> Iterator[av.VideoFrame]:
        """Every frame that can be decoded, also of a damaged file; then SourceError if it was damaged."""
        count = 0
        damage: Exception | None = None
        try:
            for frame in self._read():
                count += 1
                yield frame
        except (av.error.FFmpegError, OSError) as error:
            damage = error
        if damage is not None:
            with suppress(av.error.FFmpegError):
                for frame in self._stream.codec_context.decode(None):  # those the decoder held back, to reorder them
                    count += 1
                    yield frame
        if isinstance(damage, av.error.ExitError):  # FFmpeg's word for the time limit
            raise SourceError(
                f"{self.name} sent nothing for {self._read_timeout_s:g} s, after {count} frames"
            ) from damage
        if count == 0:
            raise SourceError(f"{self.name} holds no frame that can be decoded") from damage
        if self._cut_short:
            raise SourceError(f"{self.name} is cut short: it ends after frame {count - 1}") from damage
        if damage is not None:
            raise SourceError(f"{self.name} cannot be read after frame {count - 1}: {_reason(damage)}") from damage

    def _read(self) -> Iterator[av.VideoFrame]:
        for packet in self._container.demux(self._stream):
            try:
                yield from packet.decode()
            except av.error.FFmpegError as error:
                if not self.live:
                    raise
                # joined in the middle of a group of pictures, or a packet was lost
                logger.debug("%s: a packet was not decodable: %s", self.name, error)

    def _expected_frames(self) -> int | None:
        if self._stream.frames:
            return int(self._stream.frames)
        rate = self._stream.average_rate
        if rate and self._stream.duration and self._stream.time_base:
            return round(float(self._stream.duration * self._stream.time_base * rate))
        if rate and self._container.duration:
            return round(float(self._container.duration / av.time_base * rate))
        return None


def _upright(image: NDArray[np.uint8], rotation: int) -> NDArray[np.uint8]:
    """rotation: degrees counter-clockwise that turn the stored picture upright, as the container says."""
    turns = _quarter_turns(rotation)
    return np.ascontiguousarray(np.rot90(image, turns)) if turns else image


def _quarter_turns(rotation: int) -> int:
    return round(rotation / 90) % 4


def _rotation_of(path: str) -> int:
    """The rotation of a file's first frame: PyAV tells it with a decoded frame only. 0 where none can be decoded."""
    try:
        with av.open(f"file:{path}") as container:
            return int(next(container.decode(video=0)).rotation)
    except (av.error.FFmpegError, OSError, StopIteration):
        return 0  # the frames themselves will say what is wrong


def _reason(error: BaseException) -> str:
    if isinstance(error, av.error.InvalidDataError):
        return "its content is not a video that FFmpeg knows, or is damaged"
    text = getattr(error, "strerror", None) or str(error)
    return " ".join(str(text).split())
