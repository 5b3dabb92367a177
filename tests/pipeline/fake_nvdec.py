"""A stand-in for `av.open` with NVDEC: software decodes, and the frames come as NVDEC gives them, interleaved."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import av
import pytest
from av.codec.context import Flags2
from av.video.reformatter import VideoReformatter

from pipeline.hardware import VideoUnit

INTERLEAVED = {
    "yuv420p": "nv12",
    "yuvj420p": "nv12",
    "yuv420p10le": "p010le",
    "yuv422p": "nv16",
    "yuvj422p": "nv16",
    "yuv422p10le": "p210le",
}


class FakeNvdec:
    """takes: whether the card decodes the video; if not, FFmpeg falls back to software without a word.

    knows: whether FFmpeg's decoder of this codec can use the GPU. refuses: what opening raises.
    Where pictures stay on the device, they are `OnDevice`: FFmpeg's conversions take what they wrap.
    opened: for each `av.open`, whether it was on the GPU. codecs: of those on the GPU.
    """

    def __init__(self, *, takes: bool = True, knows: bool = True, refuses: Exception | None = None) -> None:
        self.takes, self.knows, self.refuses = takes, knows, refuses
        self.opened: list[bool] = []
        self.codecs: list[Any] = []
        self.current = False  # whether the device's context is
        self.contexts: list[bool] = []  # the same, at each opening on the GPU
        self._open: Callable[..., Any] = av.open

    def use(self, patch: pytest.MonkeyPatch) -> FakeNvdec:
        patch.setattr("pipeline.sources.decoding.find_decoder", lambda choice, gpu: VideoUnit(choice != "cpu", "fake"))
        patch.setattr("pipeline.sources.decoding.nvdec", lambda gpu, stays: "stays" if stays else "comes")
        for module in ("decoding", "surfaces"):
            patch.setattr(f"pipeline.sources.{module}.VideoReformatter", _Reformatter)
        patch.setattr("pipeline.sources.decoding.av.open", self.open)
        return self

    def open(self, where: object, *arguments: object, hwaccel: str | None = None, **options: Any) -> Any:
        if arguments:  # a look at the rotation names no mode
            self.opened.append(hwaccel is not None)
        if hwaccel is None:
            return self._open(where, *arguments, **options)
        if self.refuses is not None:
            raise self.refuses
        container = _Container(self._open(where, *arguments, **options), takes=self.takes, knows=self.knows)
        for stream in container.video:
            stream.codec_context.stays = hwaccel == "stays"
        self.contexts.append(self.current)
        self.codecs += [stream.codec_context for stream in container.video]
        return container


class _Codec:
    """FFmpeg leaves it to its user to crop a hardware frame at the left and top; the context has the cropped size."""

    def __init__(self, codec: Any, *, takes: bool, knows: bool) -> None:
        self._codec, self._takes, self.is_hwaccel = codec, takes, knows
        self.width, self.height = codec.width, codec.height
        self.pix_fmt = "cuda"
        self.stays = False
        self.thread_count = 0
        if takes:
            codec.flags2 |= Flags2.ignore_crop

    def __getattr__(self, name: str) -> Any:
        return getattr(self._codec, name)

    def decode(self, packet: Any) -> list[av.VideoFrame]:
        return self.decoded(self._codec.decode(packet))

    def decoded(self, frames: list[av.VideoFrame]) -> list[av.VideoFrame]:
        if not self._takes:
            self.pix_fmt = self._codec.pix_fmt
            return frames
        return [self._interleaved(frame) for frame in frames]

    def _interleaved(self, frame: av.VideoFrame) -> Any:
        interleaved = frame.reformat(format=INTERLEAVED.get(frame.format.name, frame.format.name))
        return OnDevice(interleaved) if self.stays else interleaved


class _Wrapped:
    def __init__(self, wrapped: Any) -> None:
        self.wrapped = wrapped

    def __getattr__(self, name: str) -> Any:
        return getattr(self.wrapped, name)


class OnDevice(_Wrapped):
    """A frame whose pixels only the device reads."""

    def __init__(self, frame: av.VideoFrame) -> None:
        super().__init__(frame)
        self.sw_format = frame.format
        self.format = SimpleNamespace(name="cuda")


class _Reformatter:
    def __init__(self) -> None:
        self._real = VideoReformatter()

    def reformat(self, frame: Any, *, format: str) -> av.VideoFrame:
        return self._real.reformat(frame.wrapped if isinstance(frame, OnDevice) else frame, format=format)


class _Stream(_Wrapped):
    def __init__(self, stream: Any, codec: _Codec) -> None:
        super().__init__(stream)
        self.codec_context = codec
        self.thread_type = ""


class _Packet:
    def __init__(self, decode: Callable[[], list[av.VideoFrame]]) -> None:
        self.decode = decode


class _Container(_Wrapped):
    def __init__(self, container: Any, *, takes: bool, knows: bool) -> None:
        super().__init__(container)
        self.streams = self
        self.video = [
            _Stream(stream, _Codec(stream.codec_context, takes=takes and knows, knows=knows))
            for stream in container.streams.video
        ]

    def demux(self, stream: _Stream) -> Iterator[_Packet]:
        def decode(packet: Any) -> list[av.VideoFrame]:
            return stream.codec_context.decoded(packet.decode())

        for packet in self.wrapped.demux(stream.wrapped):
            yield _Packet(partial(decode, packet))
