"""Draws skeletons on frames. Limbs are coloured by body side; joints, trunk and number in the colour of the id."""

from __future__ import annotations

import colorsys
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from core.joints import JointSet, Side, joint_set_of
from pipeline.types import People

# BGR. Warm for right, cool for left: distinguishable with the common colour vision deficiencies too.
COLORS: dict[Side, tuple[int, int, int]] = {"left": (255, 176, 56), "right": (44, 126, 255), "middle": (110, 222, 120)}
OUTLINE = (24, 24, 24)
SHIFT = 4  # cv2 draws at 1/16 pixel
WIDTH_PER_HEIGHT = 1 / 75  # width of a limb's line per height of the person
WIDTHS = (1.5, 9.0)  # smallest and largest
FONT = cv2.FONT_HERSHEY_SIMPLEX
GOLDEN_ANGLE = 137.508  # degrees of hue from one id to the next; keeps the hues of many ids apart


def draw_people(image: NDArray[np.uint8], people: People) -> NDArray[np.uint8]:
    """Draw onto `image` (H, W, 3) uint8 BGR, in place, and return it. Joints with score 0 are not drawn.

    Lines and dots scale with the person's height. Smaller people, mostly farther away, are drawn first. A person with
    an id is drawn in the id's colour, with its number.
    """
    if not len(people):
        return image
    skeleton = joint_set_of(people.keypoint_scores.shape[1])
    sides = _sides(skeleton)
    heights = people.boxes()[:, 2:].max(axis=1)
    for person in np.argsort(heights, kind="stable"):
        _draw_person(
            image,
            people.keypoints[person],
            people.keypoint_scores[person] > 0,
            skeleton=skeleton,
            sides=sides,
            height=float(heights[person]),
            person_id=int(people.ids[person]),
        )
    return image


@cache
def id_color(person_id: int) -> tuple[int, int, int]:
    """The BGR colour of an id, the same as on the page."""
    hue = person_id * GOLDEN_ANGLE % 360
    red, green, blue = colorsys.hls_to_rgb(hue / 360, 0.66, 0.85)
    return round(255 * blue), round(255 * green), round(255 * red)


def draw_caption(image: NDArray[np.uint8], text: str) -> NDArray[np.uint8]:
    """Draw a line of outlined text in the upper left corner, scaled with the frame; in place."""
    scale = max(0.45, image.shape[0] / 900)
    origin = (round(12 * scale), round(30 * scale))
    cv2.putText(image, text, origin, FONT, scale, OUTLINE, max(2, round(4 * scale)), cv2.LINE_AA)
    cv2.putText(image, text, origin, FONT, scale, (255, 255, 255), max(1, round(1.6 * scale)), cv2.LINE_AA)
    return image


def _draw_person(
    image: NDArray[np.uint8],
    keypoints: NDArray[np.float32],
    found: NDArray[np.bool_],
    *,
    skeleton: JointSet,
    sides: tuple[tuple[Side, ...], tuple[Side, ...]],
    height: float,
    person_id: int,
) -> None:
    width = float(np.clip(height * WIDTH_PER_HEIGHT, *WIDTHS))
    line_width = max(1, round(width))
    outline_width = line_width + max(2, round(width * 0.6))
    # keypoints have pixel centres at +0.5, cv2 at 0; points far outside would overflow cv2's fixed-point numbers
    limit = 8 * max(image.shape[:2])
    fixed = np.rint((np.clip(keypoints, -limit, limit) - 0.5) * (1 << SHIFT)).astype(int).tolist()
    limbs = [
        (edge, side) for edge, side in zip(skeleton.edges, sides[1], strict=True) if found[edge[0]] and found[edge[1]]
    ]
    for (a, b), _ in limbs:  # all outlines first, so that none covers another limb
        cv2.line(image, fixed[a], fixed[b], OUTLINE, outline_width, cv2.LINE_AA, SHIFT)
    id_colour = id_color(person_id) if person_id else None
    for (a, b), side in limbs:
        color = id_colour if id_colour is not None and side == "middle" else COLORS[side]
        cv2.line(image, fixed[a], fixed[b], color, line_width, cv2.LINE_AA, SHIFT)
    for joint in np.flatnonzero(found):
        radius = width * 1.05 * (0.7 if skeleton.joints[joint].endswith(("eye", "ear")) else 1.0)
        center = fixed[joint]
        cv2.circle(
            image, center, round((radius + max(1.0, width * 0.35)) * (1 << SHIFT)), OUTLINE, -1, cv2.LINE_AA, SHIFT
        )
        fill = id_colour if id_colour is not None else _light(COLORS[sides[0][joint]])
        cv2.circle(image, center, round(radius * (1 << SHIFT)), fill, -1, cv2.LINE_AA, SHIFT)
    if id_colour is not None and found.any():
        _draw_number(image, person_id, keypoints[found], width=width, color=id_colour)


def _draw_number(
    image: NDArray[np.uint8], person_id: int, xy: NDArray[np.float32], *, width: float, color: tuple[int, int, int]
) -> None:
    """Draw the id above the person's highest joint, or below it near the picture's upper edge."""
    text, scale = str(person_id), 0.3 + 0.13 * width
    thick = max(1, round(1.8 * scale))
    (wide, tall), _ = cv2.getTextSize(text, FONT, scale, thick)
    x, top = xy[:, 0].mean() - wide / 2, xy[:, 1].min() - 3 * width - 2
    y = top if top > tall else xy[:, 1].min() + 3 * width + tall
    limit = 8 * max(image.shape[:2])
    origin = round(float(np.clip(x, -limit, limit))), round(float(np.clip(y, -limit, limit)))
    cv2.putText(image, text, origin, FONT, scale, OUTLINE, thick + 2, cv2.LINE_AA)
    cv2.putText(image, text, origin, FONT, scale, color, thick, cv2.LINE_AA)


def _light(color: tuple[int, int, int]) -> tuple[int, int, int]:
    b, g, r = ((3 * 255 + 2 * c) // 5 for c in color)
    return b, g, r


@cache
def _sides(skeleton: JointSet) -> tuple[tuple[Side, ...], tuple[Side, ...]]:
    """The body side of each joint and of each edge."""
    joints = tuple(skeleton.side(joint) for joint in range(len(skeleton.joints)))
    return joints, tuple(skeleton.edge_side(edge) for edge in skeleton.edges)
