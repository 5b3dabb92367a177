"""Draws the ids of people as labels above their heads, none over another; as the page does (`page/draw.js`)."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

FONT = cv2.FONT_HERSHEY_DUPLEX
FONT_HEIGHT = 22.0  # pixels of a digit at scale 1
TEXT, OUTLINE = (18, 14, 12), (24, 24, 24)  # BGR
SIZE_PER_HEIGHT, SIZES = 0.065, (9.0, 36.0)  # height of the digits, per height of the person; smallest and largest
LIFT = 0.07  # of the person's height, from the highest joint to the label: eyes are below the top of the head
KNOWN_IDS = 1024  # whose colours are kept: ids grow without end
GOLDEN_ANGLE = 137.508  # degrees of hue from one id to the next; keeps the hues of many ids apart


@lru_cache(maxsize=KNOWN_IDS)
def id_color(person_id: int) -> tuple[int, int, int]:
    """The BGR colour of an id, the same as on the page."""
    hue = person_id * GOLDEN_ANGLE % 360
    red, green, blue = colorsys.hls_to_rgb(hue / 360, 0.66, 0.85)
    return round(255 * blue), round(255 * green), round(255 * red)


def draw_labels(image: NDArray[np.uint8], ids: Sequence[int], tops: NDArray[np.float64]) -> None:
    """Draw a label for each person, in place: a pill in the id's colour with its number.

    tops: (P, 3) pixels: x of the person's middle, y of the highest joint, and the person's height.
    Labels stay inside the picture. One that would cover another, of somebody lower in the picture, moves up, or down
    where there is no place above.
    """
    placed: list[tuple[float, float, float, float]] = []
    for n in np.argsort(-tops[:, 1], kind="stable"):
        center, top, height = tops[n].tolist()
        size = min(max(height * SIZE_PER_HEIGHT, SIZES[0]), SIZES[1])
        text, scale, thick = str(ids[n]), size / FONT_HEIGHT, max(1, round(size / 11))
        (text_w, text_h), _ = cv2.getTextSize(text, FONT, scale, thick)
        wide, tall = text_w + 1.1 * size, 1.7 * size
        x = min(max(center - wide / 2, 0.0), max(image.shape[1] - wide, 0.0))
        lowest = max(image.shape[0] - tall, 0.0)
        y = _free(x, min(top - LIFT * height - tall, lowest), wide, tall, placed)
        if y < 0:  # no place above: the first one from the upper edge downwards
            y = min(_free(x, 0.0, wide, tall, placed, upwards=False), lowest)
        placed.append((x, y, wide, tall))
        _pill(image, (x, y, wide, tall), id_color(ids[n]))
        origin = round(x + (wide - text_w) / 2), round(y + (tall + text_h) / 2)
        cv2.putText(image, text, origin, FONT, scale, TEXT, thick, cv2.LINE_AA)


def _free(
    x: float,
    y: float,
    wide: float,
    tall: float,
    placed: Sequence[tuple[float, float, float, float]],
    *,
    upwards: bool = True,
) -> float:
    """The first free y from this one on. placed: x, y, width and height of each label."""
    for other_x, other_y, other_wide, other_tall in sorted(placed, key=lambda label: label[1], reverse=upwards):
        beside = abs(x + wide / 2 - other_x - other_wide / 2) >= (wide + other_wide) / 2
        if not beside and other_y - tall < y < other_y + other_tall:
            y = other_y - tall - 1 if upwards else other_y + other_tall + 1
    return y


def _pill(image: NDArray[np.uint8], label: tuple[float, float, float, float], color: tuple[int, int, int]) -> None:
    """A line as thick as the label is tall: OpenCV draws its ends round. Its coordinates are sixteenths of a pixel."""
    x, y, wide, tall = label
    row, inset = round(16 * (y + tall / 2)), min(tall, wide) / 2
    first, last = (round(16 * (x + inset)), row), (round(16 * (x + wide - inset)), row)
    cv2.line(image, first, last, OUTLINE, max(1, round(tall)), cv2.LINE_AA, 4)
    cv2.line(image, first, last, color, max(1, round(tall - 2)), cv2.LINE_AA, 4)
