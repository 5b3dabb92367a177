"""WindowSink: shows live windows with OpenCV."""

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
    """One live window, or one for each source. `quit` becomes true when the user presses q or Escape, or closes one.

    title: of the only window; None for one window per source, with the source's name as its title.
    """

    def __init__(self, title: str | None) -> None:
        check_display()
        self.quit = False
        self._title = title
        self._canvas: NDArray[np.uint8] = np.empty((0, 0, 3), np.uint8)
        self._times: dict[str, deque[float]] = {}  # of each window's last frames, for the displayed rate

    def write(self, result: Result, picture: NDArray[np.uint8]) -> None:
        title = result.frame.source if self._title is None else self._title
        try:
            if title not in self._times:
                cv2.namedWindow(title, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO)
                cv2.resizeWindow(title, *result.frame.wh)
                self._times[title] = deque(maxlen=30)
            cv2.imshow(title, self._captioned(picture, len(result.people), self._times[title]))
            key = cv2.waitKey(1) & 0xFF
            closed = cv2.getWindowProperty(title, cv2.WND_PROP_VISIBLE) < 1
        except cv2.error as error:
            raise SinkError(
                f"no window can be shown: {' '.join(str(error).split())}; use --save FILE instead"
            ) from error
        self.quit = self.quit or closed or key in (ord("q"), 27)

    def _captioned(self, picture: NDArray[np.uint8], people: int, times: deque[float]) -> NDArray[np.uint8]:
        times.append(time.perf_counter())
        if self._canvas.shape != picture.shape:
            self._canvas = np.empty_like(picture)
        np.copyto(self._canvas, picture)  # a copy, since other sinks get the picture without the caption
        elapsed = times[-1] - times[0]
        rate = f"{(len(times) - 1) / elapsed:.0f} FPS, " if elapsed > 0 else ""
        return draw_caption(self._canvas, f"{rate}{people} people")

    def close(self) -> None:
        if self._times:
            self._times.clear()
            cv2.destroyAllWindows()


def check_display() -> None:
    """Raises SinkError if there is no display; cv2.imshow would then end the process by a signal."""
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise SinkError("no window can be shown: DISPLAY and WAYLAND_DISPLAY are not set; use --save FILE instead")
