"""Letterbox: the mapping between frame and network input coordinates. Arithmetic only, without images."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from core.spec import SIDE_MULTIPLE, ModelSpec

MAX_ASPECT = 16  # long side of the input per short side


@dataclass(frozen=True)
class Letterbox:
    """An isotropic scale and a shift: `xy_input = scale * (xy_frame - center) + (W / 2, H / 2)`.

    input_hw: height and width of the network's input.
    scale: input pixels per frame pixel.
    center: (x, y) in frame pixels, mapped to the middle of the input. It is an integer pixel, so that an odd side
        shifts the picture by half a frame pixel, as in the authors' code.

    Source: HigherHRNet's released code, `get_multi_scale_size` and `get_affine_transform`.
    """

    input_hw: tuple[int, int]
    scale: float
    center: tuple[float, float]

    @classmethod
    def with_short_side(
        cls, frame_wh: tuple[int, int], short_side: int, *, scale: float = 1.0, min_scale: float = 1.0
    ) -> Self:
        """Scale the frame's short side to `short_side`, the other to a multiple of 64; at most 1 pixel of it is cut.

        A frame longer than `MAX_ASPECT` of its short sides is scaled to fit that shape, on black: a strip of 4 x 2000
        pixels would need gigabytes.
        scale, min_scale: this scale and the smallest one of a multi-scale evaluation; both are 1 for video.
        """
        w, h = _checked(frame_wh)
        if max(w, h) > MAX_ASPECT * min(w, h):
            size = _up_to_multiple(round(scale * short_side))
            return cls.inside(frame_wh, (size, MAX_ASPECT * size) if w > h else (MAX_ASPECT * size, size))
        short = _up_to_multiple(min_scale * short_side)
        times = scale / min_scale
        times = round(times) if abs(times - round(times)) < 1e-6 else times  # 0.6 / 0.2 is less than 3
        # The long side is rounded at the smallest scale, then scaled, and truncated like the authors' int().
        if w < h:
            wr = int(short * times)
            hr = int(_up_to_multiple(short / w * h) * times)
            factor = wr / w
        else:
            hr = int(short * times)
            wr = int(_up_to_multiple(short / h * w) * times)
            factor = hr / h
        return cls((hr, wr), factor, _center(w, h))

    @classmethod
    def inside(cls, frame_wh: tuple[int, int], input_hw: tuple[int, int]) -> Self:
        """Scale the whole frame to fit a fixed input, and centre it on black."""
        w, h = _checked(frame_wh)
        return cls(input_hw, min(input_hw[0] / h, input_hw[1] / w), _center(w, h))

    @classmethod
    def for_model(cls, frame_wh: tuple[int, int], spec: ModelSpec, size: int | None = None) -> Self:
        """The letterbox for a model. size: replaces the model's short side; ignored for a model of fixed size."""
        if spec.fixed_hw is not None:
            return cls.inside(frame_wh, spec.fixed_hw)
        return cls.with_short_side(frame_wh, size or spec.short_side)

    def to_frame(self, xy_input: NDArray[np.floating]) -> NDArray[np.float64]:
        """(..., 2) input pixels -> (..., 2) frame pixels."""
        from_middle: NDArray[np.float64] = np.asarray(xy_input, np.float64) - self._middle
        return from_middle / self.scale + np.array(self.center, np.float64)

    def to_input(self, xy_frame: NDArray[np.floating]) -> NDArray[np.float64]:
        """(..., 2) frame pixels -> (..., 2) input pixels."""
        from_center: NDArray[np.float64] = np.asarray(xy_frame, np.float64) - np.array(self.center)
        return from_center * self.scale + self._middle

    @property
    def _middle(self) -> NDArray[np.float64]:
        return np.array([self.input_hw[1] / 2, self.input_hw[0] / 2])


def _up_to_multiple(side: float) -> int:
    """Round up as in the authors' code. It ignores fractions: 640.5 gives 640."""
    return math.floor((side + SIDE_MULTIPLE - 1) / SIDE_MULTIPLE) * SIDE_MULTIPLE


def _center(w: int, h: int) -> tuple[float, float]:
    return float(int(w / 2 + 0.5)), float(int(h / 2 + 0.5))


def _checked(frame_wh: tuple[int, int]) -> tuple[int, int]:
    if min(frame_wh) < 1:
        raise ValueError(f"frame size is {frame_wh}; expected a positive width and height")
    return frame_wh
