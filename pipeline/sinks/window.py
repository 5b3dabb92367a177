"""WindowSink: a live window, by OpenCV."""

from __future__ import annotations

import os
import sys
import time
from collections import deque

import cv2
import numpy as np
from numpy.typing import NDArray

from core.errors import SinkError
from pipeline.draw import draw_caption
from pipeline.sinks.base import Sink
from pipeline.types import Result


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
