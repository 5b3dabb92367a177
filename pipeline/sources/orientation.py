"""Orientation: how a stored picture is transposed and flipped to be shown, from a video's display matrix."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, cast

import av
import numpy as np
from numpy.typing import NDArray


class Orientation(NamedTuple):
    """Multiples of 90 degrees, mirrored or not: first transposed, then flipped left to right and upside down."""

    transposed: bool = False
    flipped_x: bool = False
    flipped_y: bool = False

    @classmethod
    def of(cls, frame: av.VideoFrame) -> Orientation:
        """Of the frame's display matrix, at the nearest multiple of 90 degrees; AS_STORED without one."""
        try:
            matrix = bytes(cast("Mapping[str, bytes]", frame.side_data)["DISPLAYMATRIX"])
        except KeyError:
            return AS_STORED
        except ValueError:  # PyAV gives no side data at all of a frame with a kind that it does not know, such as EXIF
            return TURNED[round(frame.rotation / 90) % 4]
        # Nine int32, the last column aside: a stored point (x, y) is shown at (a * x + c * y, b * x + d * y).
        a, b, _, c, d = (int(value) for value in np.frombuffer(matrix, np.int32, 5))
        if abs(b) + abs(c) > abs(a) + abs(d):
            return cls(True, c < 0, b < 0)
        return cls(False, a < 0, d < 0)

    def applied(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(H, W, 3) as stored to what a player shows, C-contiguous."""
        if self == AS_STORED:
            return image
        shown = image.transpose(1, 0, 2) if self.transposed else image
        return np.ascontiguousarray(shown[:: -1 if self.flipped_y else 1, :: -1 if self.flipped_x else 1])


AS_STORED = Orientation()
# By 0, 90, 180 and 270 degrees counter-clockwise.
TURNED = (AS_STORED, Orientation(True, False, True), Orientation(False, True, True), Orientation(True, True, False))
