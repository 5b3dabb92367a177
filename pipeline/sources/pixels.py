"""Decoded frames as BGR: interlaced frames are deinterlaced, HDR is mapped to the range of a screen."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import av
import av.filter
import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from pipeline.hardware import CAN_STAY

PQ_TRANSFER = 16  # SMPTE ST 2084, as FFmpeg numbers it. HLG (18) is made to look right on a screen that knows no HDR.
WHITE_NITS = 203.0  # reference white of HDR pictures (ITU-R BT.2408)
PLANAR = {  # NVDEC's formats, U and V interleaved, and those of FFmpeg's software decoders with the same values
    "nv12": "yuv420p",
    "p010le": "yuv420p10le",
    "p016le": "yuv420p12le",
    "nv16": "yuv422p",
    "p210le": "yuv422p10le",
    "p216le": "yuv422p12le",
}
KNEE = 0.8  # of the white: what is brighter is compressed, so that highlights keep some of their shape


def deinterlaced(frames: Iterator[av.VideoFrame]) -> Iterator[av.VideoFrame]:
    """As many frames, in order; from the first interlaced one on, each is whole, at the time of its first field.

    Two fields of a moving person are two persons a few pixels apart. What goes wrong in `frames` is raised after the
    frames before it.
    """
    graph: av.filter.Graph | None = None
    kind: tuple[int, int, str] | None = None
    try:
        for frame in frames:
            this = (frame.width, frame.height, frame.format.name)
            if graph is not None and this != kind:
                yield from _flushed(graph)
                graph = None
            if graph is None:
                if not frame.interlaced_frame:
                    yield frame
                    continue
                graph, kind = _yadif(frame), this
            graph.push(frame)
            yield from _ready(graph)
    except (av.error.FFmpegError, OSError):
        if graph is not None:
            yield from _flushed(graph)
        raise
    if graph is not None:
        yield from _flushed(graph)


def planar(frame: av.VideoFrame, reformatter: VideoReformatter) -> av.VideoFrame:
    """A frame from NVDEC, in device or host memory, in the format of a software decoder, with equal values.

    A frame of another format is returned unchanged.
    FFmpeg converts interleaved and planar frames to BGR by different code, with different results.
    """
    on_device = frame.sw_format if CAN_STAY else None
    if on_device is not None:
        as_from_software: str | None = PLANAR.get(on_device.name, on_device.name)
    else:
        as_from_software = PLANAR.get(frame.format.name)
    return frame if as_from_software is None else reformatter.reformat(frame, format=as_from_software)


def to_bgr(frame: av.VideoFrame, reformatter: VideoReformatter) -> NDArray[np.uint8]:
    """(H, W, 3) uint8, C-contiguous.

    Alpha is left out; more than 8 bits are rounded; PQ is tone-mapped, in its own primaries.
    """
    if frame.color_trc == PQ_TRANSFER:
        wide = reformatter.reformat(frame, format="bgr48le").to_ndarray()
        return np.asarray(_tone_map()[wide], np.uint8)
    return np.ascontiguousarray(reformatter.reformat(frame, format="bgr24").to_ndarray(), np.uint8)


@cache
def _tone_map() -> NDArray[np.uint8]:
    """(65536,): the 8-bit value on a screen of each 16-bit PQ value. Source of the inverse of PQ: SMPTE ST 2084."""
    m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
    root = np.linspace(0, 1, 65536) ** (1 / m2)
    nits = 10_000 * (np.maximum(root - c1, 0) / (c2 - c3 * root)) ** (1 / m1)
    light = nits / WHITE_NITS
    above = np.maximum(light - KNEE, 0)
    mapped = np.minimum(light, KNEE) + (1 - KNEE) * (1 - np.exp(-above / (1 - KNEE)))
    return np.asarray(np.rint(255 * mapped ** (1 / 2.4)), np.uint8)


def _yadif(frame: av.VideoFrame) -> av.filter.Graph:
    graph = av.filter.Graph()
    source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base)
    whole, sink = graph.add("yadif", "mode=send_frame:deint=interlaced"), graph.add("buffersink")
    source.link_to(whole)
    whole.link_to(sink)
    graph.configure()
    return graph


def _ready(graph: av.filter.Graph) -> Iterator[av.VideoFrame]:
    while True:
        try:
            frame = graph.pull()
        except (BlockingIOError, EOFError):  # it wants another frame, or has given all
            return
        assert isinstance(frame, av.VideoFrame)
        yield frame


def _flushed(graph: av.filter.Graph) -> Iterator[av.VideoFrame]:
    graph.push(None)
    return _ready(graph)
