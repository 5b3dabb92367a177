"""Draws a head: skull, hair, and the visible ones of eyes, nose, mouth and ears."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from samples import body
from samples.outfit import Outfit
from samples.paint import Canvas, Cloth, limb

MIN_FORWARD = 0.012  # the nose or an eye is visible if it is at least this far in front of the head's middle, heights
EAR_BEHIND = 0.018  # an ear is visible up to this far behind the middle, since it stands out

Point = tuple[float, float]


@dataclass(frozen=True)
class Look:
    """The parameters of drawing a head.

    points: (NUM_POINTS, 3) x, y in pixels and depth in heights. unit: pixels per height, times the head's size.
    labels: of skin and of hair.
    """

    points: NDArray[np.float64]
    unit: float
    yaw: float
    wear: Outfit
    labels: tuple[int, int]
    light: float

    def at(self, point: int) -> Point:
        return float(self.points[point, 0]), float(self.points[point, 1])

    def down(self, share: float) -> Point:
        """A point on the line from the top of the head (share 0) to the chin (1), or beyond."""
        (x0, y0), (x1, y1) = self.at(body.HEAD_TOP), self.at(body.CHIN)
        return x0 + (x1 - x0) * share, y0 + (y1 - y0) * share

    @property
    def wide(self) -> float:
        """Half the width in pixels; a head is longer from front to back than from ear to ear."""
        return math.hypot(0.043 * math.cos(self.yaw), 0.050 * math.sin(self.yaw)) * self.unit

    @cached_property
    def away(self) -> list[int]:
        return hidden_face(self.points[:, 2])


def hidden_face(depth: NDArray[np.float64]) -> list[int]:
    """The face joints (0..4) on the far side of the head. depth: (NUM_POINTS,) in heights, larger is nearer."""
    middle = depth[body.HEAD]
    away = [j for j in (body.NOSE, *body.EYES) if depth[j] < middle + MIN_FORWARD]
    return away + [j for j in body.EARS if depth[j] < middle - EAR_BEHIND]


def draw_head(canvas: Canvas, look: Look) -> None:
    """Draw skull, hair, ears and face."""
    wide, wear, (skin, hair) = look.wide, look.wear, look.labels
    skull = wide, wide * 0.92, wide * 0.66
    limb(canvas, look.down(0.36), look.down(0.80), skull, wear.skin, label=skin, light=look.light)
    if not wear.bald:
        _hair(canvas, look, hair)
    radius = 0.0105 * look.unit
    for ear in body.EARS:
        if ear not in look.away and not wear.long_hair:
            x, y = look.at(ear)
            ends = (x, y - radius), (x, y + radius * 1.2)
            limb(canvas, *ends, (radius, radius * 0.7), _tinted(wear.skin, 0.88), label=skin, light=look.light)
    _face(canvas, look)


def draw_long_hair(canvas: Canvas, look: Look) -> None:
    """Draw the hair at the back of the head; for a person who faces the camera, call it before drawing the neck."""
    wide = 0.052 * look.unit
    radii = wide, wide, wide * 0.85
    back = -0.018 * look.unit * math.sin(look.yaw)
    (x0, y0), (x1, y1) = look.down(0.42), look.down(1.3)
    ends = (x0 + back, y0), (x1 + back, y1)
    limb(canvas, *ends, radii, look.wear.hair, label=look.labels[1], light=look.light)


def _face(canvas: Canvas, look: Look) -> None:
    """Draw the features without labels, since their pixels have the head's label."""
    unit, skin = look.unit, look.wear.skin
    turned = abs(math.cos(look.yaw))  # features become narrower as the face turns

    def stroke(centre: Point, half: float, radius: float, cloth: Cloth) -> None:
        x, y = centre
        limb(canvas, (x - half * unit, y), (x + half * unit, y), (radius * unit,) * 2, cloth, shade=0.1)

    for eye in body.EYES:
        if eye not in look.away:
            half = 0.0085 * max(turned, 0.35)
            x, y = look.at(eye)
            stroke((x, y), half, 0.0034, Cloth((195, 200, 208)))
            stroke((x, y), 0.0, 0.0027, Cloth((70, 60, 54)))
            stroke((x, y - 0.0175 * unit), half * 1.4, 0.0016, _tinted(look.wear.hair, 0.8))
    if body.NOSE not in look.away:
        x, y = look.at(body.NOSE)
        bridge = x - 0.010 * unit * math.sin(look.yaw), y - 0.022 * unit
        limb(canvas, bridge, (x, y), (0.0045 * unit, 0.0085 * unit), _tinted(skin, 0.93), shade=0.5)
        stroke((x, y + 0.007 * unit), 0.004, 0.0014, _tinted(skin, 0.6))
        blue, green, red = skin.colour
        stroke(look.at(body.MOUTH), 0.0125 * max(turned, 0.4), 0.0034, Cloth((blue * 0.6, green * 0.55, red * 0.8)))


def _hair(canvas: Canvas, look: Look, label: int) -> None:
    """Draw the hair on every pixel of the skull whose surface faces up or backwards."""
    top, chin, middle = look.at(body.HEAD_TOP), look.at(body.CHIN), look.down(0.46)
    length = max(math.dist(top, chin), 1e-3)
    wide, tall = look.wide * 1.08, length * 0.52
    height, width = canvas.owner.shape
    reach = max(wide, tall) + 2
    x0, x1 = max(0, math.floor(middle[0] - reach)), min(width, math.ceil(middle[0] + reach))
    y0, y1 = max(0, math.floor(middle[1] - reach)), min(height, math.ceil(middle[1] + reach))
    if x0 >= x1 or y0 >= y1:
        return
    ux, uy = (chin[0] - top[0]) / length, (chin[1] - top[1]) / length
    x = np.arange(x0, x1, dtype=np.float32)[None, :] + np.float32(0.5 - middle[0])
    y = np.arange(y0, y1, dtype=np.float32)[:, None] + np.float32(0.5 - middle[1])
    up = -(x * ux + y * uy) / tall  # -1 chin .. 1 top
    side = (x * uy - y * ux) / wide  # -1 .. 1, to the picture's right
    squared = side**2 + up**2
    forward = np.sqrt(np.clip(1 - squared, 0, 1)) * math.cos(look.yaw) + side * math.sin(look.yaw)
    # There is hair where the surface faces less forward than this: high above the brow, low at temples and nape.
    hairline = np.where(up > 0.15, 0.10 + 1.25 * (up - 0.15), np.where(up > -0.35, 0.05, -0.30 + 0.6 * (up + 0.35)))
    soft = 3.0 / max(wide, 3.0)
    cover = np.clip((1 - np.sqrt(squared)) * tall + 0.5, 0, 1) * np.clip((hairline - forward) / soft + 0.5, 0, 1)
    cover = np.where(up < -0.72, 0, cover).astype(np.float32)
    bright = (1.0 + 0.18 * up - 0.25 * (side + 0.3) ** 2 + 0.12 * np.sin(side * 19 + np.sin(up * 5))).astype(np.float32)
    region = canvas.image[y0:y1, x0:x1]
    region += cover[..., None] * (bright[..., None] * np.asarray(look.wear.hair.colour, np.float32) - region)
    canvas.owner[y0:y1, x0:x1][cover > 0.5] = label


def _tinted(cloth: Cloth, factor: float) -> Cloth:
    blue, green, red = cloth.colour
    return Cloth((blue * factor, green * factor, red * factor))
