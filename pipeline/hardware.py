"""Finds out whether an NVIDIA GPU decodes (NVDEC) and encodes (NVENC) videos; each is tried once per process."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import Literal

import av
import numpy as np
from av.codec.hwaccel import HWAccel
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from core.errors import PoseError, SinkError, SourceError
from engine.gpu import find_gpu

Choice = Literal["auto", "cpu", "gpu"]
CHOICES: tuple[Choice, ...] = ("auto", "cpu", "gpu")

# The formats in which FFmpeg copies NVDEC's pictures to the host. Its software decoders use the first six for none of
# the codecs that NVDEC has.
DOWNLOADED = frozenset({"nv12", "p010le", "p016le", "nv16", "p210le", "p216le", "yuv444p", "yuv444p16le"})
ON_DEVICE = "cuda"  # FFmpeg's format of a picture that stays in device memory, whatever its pixels are
CAN_STAY = hasattr(av.VideoFrame, "sw_format")  # PyAV 18 and newer say what a picture on the device is made of
TRIAL_SIDE = 256  # pixels; above the smallest size of every card

# Constant quality as in X264 (sinks/video.py): NVENC's scale of `cq` is H.264's quantiser, as x264's `crf` is. Without
# B-frames and look-ahead, for the reason given there. Not yet compared with x264 on a card.
NVENC: Mapping[str, str] = {
    "preset": "p5",
    "tune": "hq",
    "rc": "vbr",
    "cq": "21",
    "b": "0",  # no average bit rate: the quality alone decides
    "bf": "0",
    "spatial-aq": "1",  # x264's presets distribute bits in the same way
}
H264_NVENC_SIDE = 4096  # pixels: NVENC codes larger pictures only as HEVC


@dataclass(frozen=True)
class VideoUnit:
    """The unit that decodes or encodes. why: the GPU's name, or the reason for using the CPU."""

    on_gpu: bool
    why: str

    def __str__(self) -> str:
        return f"on the GPU ({self.why})" if self.on_gpu else f"on the CPU: {self.why}"


def find_decoder(choice: Choice = "auto", gpu: int = 0) -> VideoUnit:
    """The unit that decodes videos. "auto": the GPU if it can. gpu: as in `find_gpu`.

    A GPU that decodes H.264 may not support another codec: only a video's first frame shows what decoded it.
    Raises SourceError if "gpu" was chosen and there is none that decodes, ValueError for another word.
    """
    return _find("decode", choice, lambda: _tried_decoder(gpu), SourceError)


def find_encoder(choice: Choice = "auto", gpu: int = 0) -> VideoUnit:
    """The unit that encodes videos. "auto": the GPU if it can. gpu: as in `find_gpu`.

    Raises SinkError if "gpu" was chosen and there is none that encodes, ValueError for another word.
    """
    return _find("encode", choice, lambda: _tried_encoder(gpu), SinkError)


def nvdec(gpu: int = 0, *, allow_software_fallback: bool = True, stays: bool = False) -> HWAccel:
    """For `av.open`: decode on the GPU. With `stays`, pictures stay on the device; else each is copied to the host.

    With `stays`, FFmpeg uses the CUDA context that is current in this thread; else it makes one of its own. The option
    `primary_ctx` is no alternative: FFmpeg refuses a primary context that was made with other flags than its own.
    """
    options: dict[str, object] = {"primary_ctx": "0", "current_ctx": "1"} if stays else {}
    return HWAccel(
        "cuda",
        device=str(gpu),
        allow_software_fallback=allow_software_fallback,
        options=options,
        is_hw_owned=stays,
    )


def is_from_gpu(frame: av.VideoFrame, codec: VideoCodecContext) -> bool:
    """Whether NVDEC decoded this frame. FFmpeg silently falls back to software if the GPU lacks the codec."""
    return codec.pix_fmt == "cuda" and frame.format.name in DOWNLOADED | {ON_DEVICE}


def nvenc_for(wh: tuple[int, int]) -> str:
    """The NVENC encoder that supports pictures of this size."""
    return "h264_nvenc" if max(wh) <= H264_NVENC_SIDE else "hevc_nvenc"


def _find(verb: str, choice: Choice, tried: Callable[[], VideoUnit], error: type[PoseError]) -> VideoUnit:
    option = f"--{verb}r"
    if choice not in CHOICES:
        raise ValueError(f"{verb}r is {choice!r}; expected one of {', '.join(CHOICES)}")
    unit = VideoUnit(False, f"{option} cpu") if choice == "cpu" else tried()
    if choice == "gpu" and not unit.on_gpu:
        raise error(f"{option} gpu: no GPU {verb}s videos here: {unit.why}; use {option} auto or cpu")
    return unit


@cache
def _tried_decoder(gpu: int) -> VideoUnit:
    found, why = find_gpu(gpu)
    if found is None:
        return VideoUnit(False, why)
    try:
        with av.open(_trial_video(), "r", hwaccel=nvdec(gpu, allow_software_fallback=False)) as container:
            codec = container.streams.video[0].codec_context
            codec.thread_count = 1
            if is_from_gpu(next(container.decode(video=0)), codec):
                return VideoUnit(True, f"NVDEC of {found.name}")
    except (av.error.FFmpegError, OSError, RuntimeError, StopIteration) as error:
        return VideoUnit(False, f"{found.name} decoded no test video: {one_line(error)}")
    return VideoUnit(False, f"{found.name} decoded no test video: FFmpeg fell back to software")


@cache
def _tried_encoder(gpu: int) -> VideoUnit:
    found, why = find_gpu(gpu)
    if found is None:
        return VideoUnit(False, why)
    try:
        codec = av.CodecContext.create("h264_nvenc", "w")
        codec.width = codec.height = TRIAL_SIDE
        codec.pix_fmt, codec.time_base = "yuv420p", Fraction(1, 25)
        codec.options = {**NVENC, "gpu": str(gpu)}
        codec.open()
    except (av.error.FFmpegError, OSError, ValueError) as error:
        return VideoUnit(False, f"{found.name} has no video encoder, or its driver does not: {one_line(error)}")
    return VideoUnit(True, f"NVENC of {found.name}")


def _trial_video() -> io.BytesIO:
    """One grey H.264 picture in Matroska."""
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as container:
        stream = container.add_stream("libx264", rate=25)
        assert isinstance(stream, VideoStream)
        stream.width = stream.height = TRIAL_SIDE
        stream.pix_fmt = "yuv420p"
        grey = np.full((TRIAL_SIDE * 3 // 2, TRIAL_SIDE), 128, np.uint8)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(grey, "yuv420p")))
        container.mux(stream.encode(None))
    file.seek(0)
    return file


def one_line(error: BaseException) -> str:
    """FFmpeg's or the system's reason in one line."""
    return " ".join(str(getattr(error, "strerror", None) or error or type(error).__name__).split())
