"""Decoding: decodes a video by NVDEC if the GPU supports it, else by FFmpeg's software decoders."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import nullcontext

import av
import numpy as np
from av.container import InputContainer
from av.video.codeccontext import VideoCodecContext
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray

from core.errors import SourceError
from engine.device import Device
from pipeline.hardware import CAN_STAY, Choice, find_decoder, is_from_gpu, nvdec, one_line
from pipeline.sources.pipe import PipeReader
from pipeline.sources.pixels import planar
from pipeline.sources.surfaces import stays_on_device

logger = logging.getLogger(__name__)


class Decoding:
    """The first video stream of what `av.open` opens. Close it.

    name: for messages. where: a URL, "file:" and a path, or a pipe; it can be opened a second time if `again`.
    decoder: "auto" decodes on the CPU what the GPU does not support, and logs it; "gpu" raises SourceError instead.
    device: if set before `frames`, pictures that `preprocess_nv12` supports stay there, in FFmpeg's format "cuda".
    slices: use threads that share a picture. Threads that decode a picture each are faster, but delay pictures.
    live: use such threads, and ignore packets that cannot be decoded, such as those of a stream that was joined in its
        middle. None: if the container has no end (`is_endless`).
    Raises what `av.open` raises, and SourceError without a video stream of a known codec.
    """

    def __init__(
        self,
        where: str | PipeReader,
        name: str,
        *,
        again: bool,
        decoder: Choice = "auto",
        gpu: int = 0,
        slices: bool = False,
        live: bool | None = False,
        options: Mapping[str, str],
        timeout: tuple[float, float] | None = None,
    ) -> None:
        self._where, self._name, self._again = where, name, again
        self._decoder, self._gpu, self._slices = decoder, gpu, slices
        self._options, self._timeout = dict(options), timeout
        self.on_gpu = find_decoder(decoder, gpu).on_gpu  # corrected by the codec or the first frame
        self._proved = not self.on_gpu
        self._stays = False
        self._reformatter = VideoReformatter()
        self.device: Device | None = None
        self._wh = (0, 0)
        self._cut = (0, 0)
        self.container = self._open()
        self.live = is_endless(self.container) if live is None else live
        try:
            self._choose_threads()
        except SourceError:
            self.close()
            raise

    @property
    def stream(self) -> VideoStream:
        return self.container.streams.video[0]

    @property
    def codec(self) -> VideoCodecContext:
        return self.stream.codec_context

    def frames(self) -> Iterator[av.VideoFrame]:
        """Every frame, in the formats of FFmpeg's software decoders, but for what stays on the device.

        Raises FFmpegError where it cannot go on.
        """
        wanted = CAN_STAY and self._again and self.device is not None and self.device.index == self._gpu
        if self.on_gpu and wanted and not self._stays:
            self._stays = True
            self._open_again()
        for packet in self.container.demux(self.stream):
            try:
                frames = packet.decode()
            except av.error.FFmpegError as error:
                if not self.live:
                    raise
                logger.debug("%s: a packet was not decodable: %s", self._name, error)
                continue
            if frames and not self._proved:
                self._prove(frames[0])
                if not self.on_gpu and self._again:
                    break
            yield from self._as_from_software(frames)
        else:
            return
        # No frame was yielded yet: read from the start, with all threads of the software decoder.
        self._open_again()
        yield from self.frames()

    def held_back(self) -> Iterator[av.VideoFrame]:
        """The frames that the decoder still holds to reorder them; for use after damage."""
        return self._as_from_software(self.codec.decode(None))

    def cropped(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The picture without the columns and rows that the codec crops at the left and top, since NVDEC keeps them."""
        left, top = self._cut
        return np.ascontiguousarray(image[top:, left:]) if left or top else image

    def close(self) -> None:
        self.container.close()

    def _open_again(self) -> None:
        self.container.close()
        self.container = self._open()
        self._choose_threads()

    def _open(self) -> InputContainer:
        if self.on_gpu:
            try:
                return self._open_on_gpu()
            except (av.error.FFmpegError, OSError, RuntimeError) as error:
                waited = isinstance(error, av.error.ExitError)  # FFmpeg's word for the time limit
                if self._decoder == "gpu" or waited or not (self._again or self._timeout):
                    raise
                container = av.open(self._where, "r", options=self._options, timeout=self._timeout)
                self._use_cpu(one_line(error))  # the file opens: it was the GPU
                return container
        return av.open(self._where, "r", options=self._options, timeout=self._timeout)

    def _open_on_gpu(self) -> InputContainer:
        stays = self._stays and self.device is not None
        with self.device.current() if stays and self.device is not None else nullcontext():
            accelerated = nvdec(self._gpu, stays=stays)
            return av.open(self._where, "r", options=self._options, timeout=self._timeout, hwaccel=accelerated)

    def _choose_threads(self) -> None:
        if not self.container.streams.video or self.container.format.name == "tty":  # tty: FFmpeg draws text files
            raise SourceError(f"{self._name} holds no video")
        if self.codec is None:
            raise SourceError(f"{self._name} cannot be opened: its header does not say how its video is coded")
        if self.on_gpu and not self.codec.is_hwaccel:
            self._use_cpu(f"FFmpeg's decoder {self.codec.name} runs on the CPU only")
        if self.on_gpu:
            self.codec.thread_count = 1  # each further thread occupies some of NVDEC's few surfaces
        self.stream.thread_type = "SLICE" if self._slices or self.live else "AUTO"

    def _prove(self, first: av.VideoFrame) -> None:
        self._proved = True
        if not is_from_gpu(first, self.codec):
            profile = f" {self.codec.profile}" if self.codec.profile else ""
            self._use_cpu(f"it does not decode {self.codec.name}{profile}, {first.width}x{first.height}")

    def _use_cpu(self, why: str) -> None:
        """Raises SourceError if the user asked for the GPU."""
        self.on_gpu, self._proved = False, True
        if self._decoder == "gpu":
            raise SourceError(f"{self._name} cannot be decoded on the GPU: {why}; use --decoder auto or cpu")
        logger.warning("%s is decoded on the CPU, not on the GPU: %s", self._name, why)

    def _as_from_software(self, frames: list[av.VideoFrame]) -> Iterator[av.VideoFrame]:
        for frame in frames:
            if not self.on_gpu:
                yield frame
                continue
            wh = frame.width, frame.height
            if wh != self._wh:  # FFmpeg crops hardware frames at the right and bottom alone
                self._wh = wh
                self._cut = max(0, wh[0] - self.codec.width), max(0, wh[1] - self.codec.height)
            stays = self._stays and self._cut == (0, 0) and stays_on_device(frame)
            yield frame if stays else planar(frame, self._reformatter)


def is_playlist(container: InputContainer) -> bool:
    return container.format.name in {"dash", "hls"}


def is_endless(container: InputContainer) -> bool:
    """Whether an http source is live: a camera's MJPEG, a playlist without duration, or what has no size either."""
    if container.format.name == "mpjpeg":
        return True
    return container.duration is None and (is_playlist(container) or container.size <= 0)
