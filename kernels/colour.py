"""How Y, U and V become red, green and blue: the matrix and range that a video's frames name, for both sides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

Matrix = Literal["bt601", "bt709", "bt2020"]

# The shares of red and blue in luma. Sources: ITU-R BT.601-7, BT.709-6, BT.2020-2 (non-constant luminance).
RED_AND_BLUE: Mapping[Matrix, tuple[float, float]] = {
    "bt601": (0.299, 0.114),
    "bt709": (0.2126, 0.0722),
    "bt2020": (0.2627, 0.0593),
}


@dataclass(frozen=True)
class Colour:
    """matrix: of Y, U, V. full_range: Y, U and V use 0..255; else Y 16..235, U and V 16..240."""

    matrix: Matrix = "bt601"
    full_range: bool = False

    def __post_init__(self) -> None:
        if self.matrix not in RED_AND_BLUE:
            raise ValueError(f"matrix is {self.matrix!r}; expected one of {', '.join(RED_AND_BLUE)}")

    def terms(self) -> tuple[np.float32, ...]:
        """(black, luma, v_to_red, u_to_green, v_to_green, u_to_blue), float32, for levels 0..255:

        red = luma * (Y - black) + v_to_red * (V - 128), and likewise green, which takes both, and blue.
        """
        red, blue = RED_AND_BLUE[self.matrix]
        green = 1 - red - blue
        black, luma, chroma = (0.0, 1.0, 1.0) if self.full_range else (16.0, 255 / 219, 255 / 224)
        v_to_red, u_to_blue = 2 * (1 - red) * chroma, 2 * (1 - blue) * chroma
        terms = (black, luma, v_to_red, -u_to_blue * blue / green, -v_to_red * red / green, u_to_blue)
        return tuple(np.float32(term) for term in terms)
