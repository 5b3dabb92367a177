"""Random clothes, skin and hair."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import numpy as np

from samples.paint import Cloth, Colour

SKIN_LIGHT, SKIN_DARK = (165, 195, 235), (40, 62, 100)  # BGR; skin tones are interpolated between the two
HAIR = ((28, 24, 24), (30, 45, 70), (60, 100, 150), (110, 170, 205), (150, 150, 152), (30, 50, 120), (215, 215, 215))
HAIR_SHARES = (0.34, 0.24, 0.14, 0.10, 0.08, 0.05, 0.05)
PATTERNS = ("rings", "lines", "checks", "dots")


@dataclass(frozen=True)
class Outfit:
    """sleeve, leg: the covered share of the upper arm and the thigh, 0..1; above 1 the whole arm or leg is covered."""

    skin: Cloth
    hair: Cloth
    top: Cloth
    bottom: Cloth
    shoes: Cloth
    sleeve: float
    leg: float
    skirt: float  # length, in lengths of the thigh; 0: no skirt
    loose: float  # width of the clothes; 1: tight
    long_hair: bool
    bald: bool


def random_outfit(rng: np.random.Generator, height: float) -> Outfit:
    """Random clothes for a person of `height` pixels, which determines the size of patterns."""

    def cloth(plain: float, saturation: float) -> Cloth:
        return Cloth(
            colour=_colour(rng, saturation),
            second=_colour(rng, saturation),
            pattern="plain" if rng.random() < plain else str(rng.choice(PATTERNS)),
            period=float(rng.uniform(0.02, 0.09)) * height,
            folds=float(rng.uniform(0.04, 0.14)),
            offset=int(rng.integers(0, 10_000)),
        )

    tone = rng.uniform(0, 1) ** 1.3
    skin = np.array(SKIN_LIGHT) + (np.array(SKIN_DARK) - np.array(SKIN_LIGHT)) * tone + rng.normal(0, 6, 3)
    hair = HAIR[int(rng.choice(len(HAIR), p=HAIR_SHARES))]
    top = cloth(plain=0.5, saturation=0.75)
    bottom = cloth(plain=0.85, saturation=0.5)
    if rng.random() < 0.35:  # like denim
        depth = float(rng.uniform(0.5, 1.1))
        bottom = Cloth((140 * depth, 95 * depth, 70 * depth), folds=0.13, offset=bottom.offset)
    skirt = float(rng.uniform(0.5, 1.4)) if rng.random() < 0.16 else 0.0
    if skirt and rng.random() < 0.5:
        bottom = top  # a dress
    length = float(rng.random())
    return Outfit(
        skin=Cloth(_bgr(skin), folds=0.03, offset=int(rng.integers(0, 10_000))),
        hair=Cloth(_bgr(np.array(hair)), folds=0.25, offset=int(rng.integers(0, 10_000))),
        top=top,
        bottom=bottom,
        shoes=Cloth(_colour(rng, 0.3), folds=0.05),
        sleeve=float(rng.choice([0.0, 0.65, 2.0], p=[0.15, 0.4, 0.45])),
        leg=float(rng.choice([0.0, 0.8, 2.0], p=[0.05, 0.25, 0.7])) if not skirt else float(rng.choice([0.0, 2.0])),
        skirt=skirt,
        loose=float(rng.uniform(1.0, 1.25)),
        long_hair=length < 0.35,
        bald=length > 0.94,
    )


def _colour(rng: np.random.Generator, saturation: float) -> Colour:
    """A random colour of any hue, often with low saturation, including white, grey and black."""
    strength = float(rng.uniform(0, saturation)) if rng.random() < 0.7 else 0.05
    red, green, blue = colorsys.hsv_to_rgb(float(rng.random()), strength, float(rng.uniform(0.12, 0.95)))
    return 255 * blue, 255 * green, 255 * red


def _bgr(values: np.ndarray) -> Colour:
    return float(values[0]), float(values[1]), float(values[2])
