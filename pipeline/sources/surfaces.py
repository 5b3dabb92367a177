"""Decoded pictures that stay in device memory, described for `kernels.cuda.preprocess_nv12`."""

from __future__ import annotations

import threading
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from core.errors import SourceError
from engine.device import Rows
from kernels.colour import Colour, Matrix
from pipeline.hardware import ON_DEVICE, one_line
from pipeline.sources.orientation import AS_STORED, Orientation
from pipeline.sources.pixels import PQ_TRANSFER, planar, to_bgr

# FFmpeg's numbers (AVColorSpace). Unspecified (2) is BT.601 for its conversion to BGR, whatever the size.
MATRICES: dict[int, Matrix] = {1: "bt709", 2: "bt601", 5: "bt601", 6: "bt601", 9: "bt2020"}
FULL_RANGE = 2  # AVColorRange


def stays_on_device(frame: av.VideoFrame) -> bool:
    """Whether `preprocess_nv12` supports this frame: 8 bits, progressive, not turned, not PQ, with a known matrix."""
    return (
        frame.format.name == ON_DEVICE
        and frame.sw_format is not None
        and frame.sw_format.name == "nv12"
        and not frame.interlaced_frame
        and Orientation.of(frame) == AS_STORED
        and frame.colorspace in MATRICES
        and frame.color_trc != PQ_TRANSFER
    )


class Downloads:
    """Copies Surfaces of one video to the host as BGR, one at a time; they share its conversion contexts."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._to_planar, self._to_bgr = VideoReformatter(), VideoReformatter()

    def bgr(self, frame: av.VideoFrame) -> NDArray[np.uint8]:
        with self._lock:
            return to_bgr(planar(frame, self._to_planar), self._to_bgr)


class DecodedSurface:
    """A Surface around a decoded frame for which `stays_on_device` is true; it keeps the frame alive.

    name: of the video, for messages.
    """

    def __init__(self, frame: av.VideoFrame, name: str, downloads: Downloads) -> None:
        w, h = frame.width, frame.height
        self.wh = (w, h)
        self.colour = Colour(MATRICES[frame.colorspace], frame.color_range == FULL_RANGE)
        luma, chroma = frame.planes
        self.luma = _rows(luma, w, h)
        self.chroma = _rows(chroma, w + w % 2, (h + 1) // 2)
        self._frame, self._name, self._downloads = frame, name, downloads
        self._image: NDArray[np.uint8] | None = None

    def to_host(self) -> NDArray[np.uint8]:
        if self._image is None:
            try:
                self._image = self._downloads.bgr(self._frame)
            except (av.error.FFmpegError, OSError) as error:
                words = f"a picture of {self._name} cannot be copied from the GPU: {one_line(error)}"
                raise SourceError(words) from error
        return self._image


def _rows(plane: Any, width_bytes: int, count: int) -> Rows:
    return Rows(plane.buffer_ptr, plane.line_size, width_bytes, count)
