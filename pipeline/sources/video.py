"""VideoSource: video files and network streams, by PyAV."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import av
from av.video.reformatter import VideoReformatter

from core.errors import SourceError
from engine.device import Device
from pipeline.hardware import ON_DEVICE, Choice
from pipeline.sources.base import Source, is_http, is_stream, is_url
from pipeline.sources.decoding import Decoding, is_playlist
from pipeline.sources.names import public_name
from pipeline.sources.orientation import AS_STORED, Orientation
from pipeline.sources.pipe import PipeReader, is_pipe
from pipeline.sources.pixels import deinterlaced, to_bgr
from pipeline.sources.surfaces import DecodedSurface, Downloads
from pipeline.sources.timeline import Timeline, interval_of
from pipeline.sources.truncation import is_cut_short
from pipeline.types import Frame, Picture

OPEN_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 10.0


class VideoSource(Source):
    """A file or URL. Frames are upright; times are the container's, from 0 on; a live stream drops what is undecodable.

    decoder: "auto" uses an NVIDIA GPU if it supports the video (`pipeline.hardware`), "gpu" raises SourceError if not.
        The pictures are equal to the bit, but for 4:4:4 with more than 8 bits.
    gpu: which one, as in `find_gpu`.
    comes_in_pieces: a live stream whose server sends some seconds at once (HLS, DASH).
    """

    def __init__(
        self,
        name: str,
        *,
        open_timeout_s: float = OPEN_TIMEOUT_S,
        read_timeout_s: float = READ_TIMEOUT_S,
        decoder: Choice = "auto",
        gpu: int = 0,
    ) -> None:
        self.name = public_name(name)
        self._read_timeout_s = read_timeout_s
        started = time.monotonic()
        self._pipe: PipeReader | None = None
        try:
            self._pipe = PipeReader(name) if not is_url(name) and is_pipe(name) else None
            once = is_url(name) or self._pipe is not None  # what cannot be opened a second time
            self._cut_short = not once and is_cut_short(Path(name))
            self._decoding = Decoding(
                # "file:", or FFmpeg takes what stands before a colon in a file's name for a protocol
                self._pipe or (name if is_url(name) else f"file:{name}"),
                self.name,
                again=not once,
                decoder=decoder,
                gpu=gpu,
                # Threads of one picture each would hold a live stream's frames back, and lose the last ones before a
                # broken packet.
                slices=self._cut_short,
                live=None if is_http(name) else is_stream(name),
                # RTSP over TCP: over UDP, lost packets tear the picture
                options={"rtsp_transport": "tcp"} if name.lower().startswith("rtsp") else {},
                timeout=(open_timeout_s, read_timeout_s) if is_url(name) else None,
            )
        except (av.error.FFmpegError, OSError, ValueError, RuntimeError) as error:
            waited = time.monotonic() - started
            if self._pipe is not None:
                self._pipe.close()
            if isinstance(error, SourceError):
                raise
            if is_url(name) and waited >= open_timeout_s:
                raise SourceError(f"{self.name} did not answer within {open_timeout_s:g} s") from error
            raise SourceError(f"{self.name} cannot be opened: {_reason(error)}") from error
        if self._decoding.codec.width <= 0:
            self.close()
            raise SourceError(f"{self.name} holds no readable video: its header has no frame size")
        self.live = self._decoding.live
        self.comes_in_pieces = self.live and is_playlist(self._decoding.container)
        self.frame_count = None if self.live else self._expected_frames()
        wh = (self._decoding.codec.width, self._decoding.codec.height)
        orientation = AS_STORED
        if not once:
            orientation = _orientation_of(f"file:{name}")
        elif is_url(name) and self.frame_count is not None:  # a file on a server; a camera may take one client only
            orientation = _orientation_of(name, (open_timeout_s, read_timeout_s))
        self.frame_wh = wh[::-1] if orientation.transposed else wh

    def __iter__(self) -> Iterator[Frame]:
        reformatter, downloads = VideoReformatter(), Downloads()
        stream = self._decoding.stream
        time_base = stream.time_base or Fraction(1, 90_000)
        timeline = Timeline(interval_of(stream))
        for index, decoded in enumerate(deinterlaced(self._decoded())):
            unit = decoded.time_base or time_base  # a filter has a unit of its own
            time_s = timeline.at(None if decoded.pts is None else decoded.pts * unit)
            if decoded.format.name == ON_DEVICE:
                picture: Picture = DecodedSurface(decoded, self.name, downloads)
            else:
                picture = Orientation.of(decoded).applied(self._decoding.cropped(to_bgr(decoded, reformatter)))
            yield Frame(picture, index, float(time_s), time.monotonic(), self.name, time_base)

    def leave_on(self, device: Device) -> None:
        self._decoding.device = device

    def interrupt(self) -> None:
        if self._pipe is not None:
            self._pipe.interrupt()

    def close(self) -> None:
        self._decoding.close()
        if self._pipe is not None:
            self._pipe.close()

    def _decoded(self) -> Iterator[av.VideoFrame]:
        """Every frame that can be decoded, also of a damaged file; then SourceError if it was damaged."""
        count = 0
        damage: Exception | None = None
        try:
            for frame in self._decoding.frames():
                count += 1
                yield frame
        except SourceError:  # the GPU was asked for and cannot decode it
            raise
        except (av.error.FFmpegError, OSError) as error:
            damage = error
        if damage is not None:
            with suppress(av.error.FFmpegError):
                for frame in self._decoding.held_back():
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

    def _expected_frames(self) -> int | None:
        stream, duration = self._decoding.stream, self._decoding.container.duration
        if stream.frames:
            return int(stream.frames)
        rate = stream.average_rate
        if rate and stream.duration and stream.time_base:
            return round(float(stream.duration * stream.time_base * rate))
        if rate and duration:
            return round(float(duration / av.time_base * rate))
        return None


def _orientation_of(url: str, timeout: tuple[float, float] | None = None) -> Orientation:
    """Of a file's first frame: PyAV gives it with decoded frames only. AS_STORED where none can be decoded."""
    try:
        with av.open(url, timeout=timeout) as container:
            return Orientation.of(next(container.decode(video=0)))
    except (av.error.FFmpegError, OSError, StopIteration):
        return AS_STORED  # the frames themselves will say what is wrong


def _reason(error: BaseException) -> str:
    if isinstance(error, av.error.InvalidDataError):
        return "its content is not a video that FFmpeg knows, or is damaged"
    text = getattr(error, "strerror", None) or str(error)
    return " ".join(str(text).split())
