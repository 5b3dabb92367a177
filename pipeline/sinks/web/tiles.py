"""Tile: the state of one source on the page: its newest frame, and the encoded message of this frame."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field

import cv2
import numpy as np

from pipeline.sinks.web.messages import pack_frame, people_fields
from pipeline.types import Frame, People

JPEG = (cv2.IMWRITE_JPEG_QUALITY, 70)  # 1280 x 720: 50 to 90 KB in 2.3 ms
STALLED_AFTER_S = 2.0  # a live source without a frame for this long is shown as stalled
RATE_FRAMES = 30  # over which the displayed rate is averaged


@dataclass(eq=False)
class TileFrame:
    """A result for the page. seq (1, 2, 3 …), fps and dropped are the tile's values at the time of the result."""

    tile: int
    name: str
    frame: Frame
    people: People
    seq: int = 0
    fps: float = 0.0
    dropped: int = 0

    def encode(self, max_side: int) -> bytes:
        """The message, with the picture reduced to `max_side`. People are in pixels of the original frame."""
        image = self.frame.image
        width, height = self.frame.wh
        factor = max_side / max(width, height)
        if factor < 1:
            size = max(1, round(width * factor)), max(1, round(height * factor))
            # INTER_AREA takes 6 ms from 1280 to 960 and looks no better there
            interpolation = cv2.INTER_LINEAR if factor > 0.5 else cv2.INTER_AREA
            image = np.asarray(cv2.resize(image, size, interpolation=interpolation), np.uint8)
        done, jpeg = cv2.imencode(".jpg", image, JPEG)
        if not done:
            raise ValueError(f"a picture of {width} x {height} cannot be encoded as JPEG")
        header = {
            "type": "frame",
            "source": self.tile,
            "seq": self.seq,
            "name": self.name,
            "frame": self.frame.index,
            "time_s": round(self.frame.time_s, 6),
            "captured_ms": round(self.frame.captured_at * 1e3, 2),
            "wh": [width, height],
            "fps": round(self.fps, 2),
            "dropped": self.dropped,
            "people": people_fields(self.people),
        }
        return pack_frame(header, jpeg.tobytes())


@dataclass(eq=False)
class Tile:
    """A tile of the grid. Sources that run at the same time have one each; those that run one after another share one.

    live: frames come in real time, so that a source without new frames is stalled. of_visitor: it shows the visitor's
    camera. override: a state ("reconnecting", "ended", "failed") and its text, valid until the next frame.
    The writing thread calls `add` and sets `override`; only the server's thread uses message and message_seq.
    """

    number: int
    name: str
    live: bool
    of_visitor: bool = False
    newest: TileFrame | None = None
    override: tuple[str, str] | None = None
    dropped: int = 0
    message: bytes = b""
    message_seq: int = 0
    _times: deque[float] = field(default_factory=lambda: deque(maxlen=RATE_FRAMES))

    def add(self, newest: TileFrame) -> None:
        """Set the newest frame. A gap in a source's indices counts as frames that the pipeline dropped."""
        before = self.newest
        if before is not None and before.name == newest.name and before.frame.index < newest.frame.index:
            self.dropped += newest.frame.index - before.frame.index - 1
        self._times.append(time.monotonic())
        newest.seq = 1 if before is None else before.seq + 1
        newest.fps, newest.dropped = self.fps(), self.dropped
        self.name, self.override, self.newest = newest.name, None, newest

    def fps(self) -> float:
        """The rate of the last frames; 0 if there was none recently."""
        times = list(self._times)
        if len(times) < 2 or time.monotonic() - times[-1] > STALLED_AFTER_S:
            return 0.0
        return (len(times) - 1) / max(times[-1] - times[0], 1e-6)

    def status(self) -> dict[str, object]:
        newest = self.newest
        state, text = self._state(newest)
        return {
            "source": self.number,
            "name": self.name,
            "state": state,
            "text": text,
            "fps": round(self.fps(), 2),
            "dropped": self.dropped,
            "age_ms": None if newest is None else round((time.monotonic() - newest.frame.captured_at) * 1e3),
        }

    def _state(self, newest: TileFrame | None) -> tuple[str, str]:
        if self.override is not None:
            return self.override
        if newest is None:
            return ("waiting" if self.of_visitor else "starting"), ""
        if self.live and time.monotonic() - self._times[-1] > STALLED_AFTER_S:
            return ("waiting" if self.of_visitor else "stalled"), ""
        return "live", ""
