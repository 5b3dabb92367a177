"""Draws tapered, shaded, textured limbs with soft edges on a float canvas, with a label for each pixel."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Colour = tuple[float, float, float]  # BGR, 0..255

NOTHING = -1
# Folds are a texture of smooth noise, sampled in coordinates of the cloth. Outfits differ in the offset.
FOLDS_SIDE = 128  # of the texture, a power of two


class Canvas(NamedTuple):
    """image: (H, W, 3) float32 BGR. owner: (H, W) int32, the label of the frontmost part at each pixel, or NOTHING."""

    image: NDArray[np.float32]
    owner: NDArray[np.int32]


@dataclass(frozen=True)
class Cloth:
    """The surface of a limb. period: of the pattern, in pixels; offset: into the texture of folds."""

    colour: Colour
    second: Colour = (0.0, 0.0, 0.0)
    pattern: str = "plain"  # plain, rings, lines, checks, dots
    period: float = 8.0
    folds: float = 0.12
    offset: int = 0


def limb(
    canvas: Canvas,
    start: tuple[float, float],
    end: tuple[float, float],
    radii: tuple[float, ...],
    cloth: Cloth,
    *,
    label: int | None = None,
    light: float = -0.35,
    shade: float = 0.45,
    hem: bool = False,
) -> None:
    """Paint a limb from start to end, with its radius interpolated between `radii`, round ends, and light from a side.

    label: of its pixels; None keeps the labels. light: position of the brightest line across the limb, -1 (left) to 1.
    shade: strength of the shading. hem: cut the end straight, like the end of a sleeve.
    """
    reach = max(radii) + 1.5
    height, width = canvas.owner.shape
    x0, x1 = max(0, math.floor(min(start[0], end[0]) - reach)), min(width, math.ceil(max(start[0], end[0]) + reach))
    y0, y1 = max(0, math.floor(min(start[1], end[1]) - reach)), min(height, math.ceil(max(start[1], end[1]) + reach))
    if x0 >= x1 or y0 >= y1:
        return
    length = max(math.dist(start, end), 1e-3)
    ux, uy = (end[0] - start[0]) / length, (end[1] - start[1]) / length
    x = np.arange(x0, x1, dtype=np.float32)[None, :] + np.float32(0.5 - start[0])
    y = np.arange(y0, y1, dtype=np.float32)[:, None] + np.float32(0.5 - start[1])
    along, across = x * ux + y * uy, y * ux - x * uy  # (h, w) each
    t = np.clip(along, 0, length)
    distance = np.hypot(across, along - t)
    if len(radii) == 2:
        radius = t * ((radii[1] - radii[0]) / length) + radii[0]
    else:
        radius = np.interp(t, np.linspace(0, length, len(radii)), radii).astype(np.float32)
    cover = np.clip(radius - distance + 0.5, 0, 1)
    if hem:
        cover *= np.clip(length - along + 0.5, 0, 1)
    if not cover.any():
        return
    # the light comes from a side of the picture; without the sign, limbs that point up would be lit from the other side
    side = np.clip(across / np.maximum(radius, 0.5), -1, 1) * (-1.0 if uy > 0 else 1.0)
    brightness = 1.12 - shade * (side - light) ** 2 * 0.6
    if cloth.folds:
        brightness = brightness + cloth.folds * _folds(along, across, cloth.offset, float(max(radii)))
    colour = _pattern(cloth, along, across)
    region = canvas.image[y0:y1, x0:x1]
    region += cover[..., None] * (brightness[..., None] * colour - region)
    if label is not None:
        canvas.owner[y0:y1, x0:x1][cover > 0.5] = label


def _pattern(cloth: Cloth, along: NDArray[np.float32], across: NDArray[np.float32]) -> NDArray[np.float32]:
    """(h, w, 3) or, for plain cloth, (3,): the colour before shading."""
    first = np.asarray(cloth.colour, np.float32)
    if cloth.pattern == "plain" or cloth.period < 2.0:  # a period near the pixel size would flicker
        return first
    wave = np.float32(2 * math.pi / cloth.period)
    if cloth.pattern == "rings":
        mix = np.sin(along * wave)
    elif cloth.pattern == "lines":
        mix = np.sin(across * wave)
    elif cloth.pattern == "checks":
        mix = np.sin(along * wave) * np.sin(across * wave)
    else:
        mix = np.cos(along * wave) + np.cos(across * wave) - 1.0
    share = np.clip(mix * 2.0 + 0.5, 0, 1)[..., None]
    return np.asarray(first + share * (np.asarray(cloth.second, np.float32) - first), np.float32)


def _folds(along: NDArray[np.float32], across: NDArray[np.float32], offset: int, radius: float) -> NDArray[np.float32]:
    step = np.float32(16.0 / max(radius, 2.0))  # folds scale with the limb
    rows = (along * step).astype(np.int32) + offset
    columns = (across * (step * 0.7)).astype(np.int32) + offset // 7
    return np.asarray(FOLDS[rows & (FOLDS_SIDE - 1), columns & (FOLDS_SIDE - 1)], np.float32)


def _blobs(side: int) -> NDArray[np.float32]:
    """(side, side), periodic, mean 0, most values within -1..1: white noise with a Gaussian low-pass filter."""
    noise = np.random.default_rng(7).standard_normal((side, side))
    frequency = np.fft.fftfreq(side)
    window = np.exp(-((frequency[:, None] ** 2 + frequency[None, :] ** 2) * 2 * (math.pi * 3.0) ** 2))
    smooth = np.real(np.fft.ifft2(np.fft.fft2(noise) * window))
    return np.asarray(smooth / smooth.std() * 0.6, np.float32)


FOLDS = _blobs(FOLDS_SIDE)
