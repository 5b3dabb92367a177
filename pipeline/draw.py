"""Skeletons onto frames. A limb's colour says the side of the body; joints, trunk and number have the person's own."""

from __future__ import annotations

import colorsys
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from core.joints import JointSet, Side, joint_set_of
from pipeline.types import People

# BGR. Warm right, cool left: told apart by the common colour-blindnesses too.
COLORS: dict[Side, tuple[int, int, int]] = {"left": (255, 176, 56), "right": (44, 126, 255), "middle": (110, 222, 120)}
OUTLINE = (24, 24, 24)
SHIFT = 4  # cv2 draws at 1/16 pixel
WIDTH_PER_HEIGHT = 1 / 75  # of the person, for a limb's line
WIDTHS = (1.5, 9.0)
FONT = cv2.FONT_HERSHEY_SIMPLEX
GOLDEN_ANGLE = 137.508  # degrees of hue from one id to the next: neighbours differ, and no two of many are near


def draw_people(image: NDArray[np.uint8], people: People) -> NDArray[np.uint8]:
    """Draw onto `image` (H, W, 3) uint8 BGR, in place, and return it; joints with score 0 are left out.

    Lines and dots grow with the person; the far are drawn first, so that the near lie above them. Who has an id wears
    its colour and number.
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
    """BGR; the same for an id in every frame, and on the page."""
    hue = person_id * GOLDEN_ANGLE % 360
    red, green, blue = colorsys.hls_to_rgb(hue / 360, 0.66, 0.85)
    return round(255 * blue), round(255 * green), round(255 * red)


def draw_caption(image: NDArray[np.uint8], text: str) -> NDArray[np.uint8]:
    """A line of text in the upper left corner, outlined, sized with the frame; in place."""
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
    thick, rim = max(1, round(width)), max(1, round(width)) + max(2, round(width * 0.6))
    # keypoints have pixel centres at +0.5, cv2 at 0; far outside points would overflow cv2's fixed point
    limit = 8 * max(image.shape[:2])
    fixed = np.rint((np.clip(keypoints, -limit, limit) - 0.5) * (1 << SHIFT)).astype(int).tolist()
    limbs = [
        (edge, side) for edge, side in zip(skeleton.edges, sides[1], strict=True) if found[edge[0]] and found[edge[1]]
    ]
    for (a, b), _ in limbs:  # all rims below all colours, or a rim would cut the limb before it
        cv2.line(image, fixed[a], fixed[b], OUTLINE, rim, cv2.LINE_AA, SHIFT)
    own = id_color(person_id) if person_id else None
    for (a, b), side in limbs:
        color = own if own is not None and side == "middle" else COLORS[side]
        cv2.line(image, fixed[a], fixed[b], color, thick, cv2.LINE_AA, SHIFT)
    radius = width * 1.05
    for joint in np.flatnonzero(found):
        small = radius * (0.7 if skeleton.joints[joint].endswith(("eye", "ear")) else 1.0)
        center = fixed[joint]
        cv2.circle(
            image, center, round((small + max(1.0, width * 0.35)) * (1 << SHIFT)), OUTLINE, -1, cv2.LINE_AA, SHIFT
        )
        fill = own if own is not None else _light(COLORS[sides[0][joint]])
        cv2.circle(image, center, round(small * (1 << SHIFT)), fill, -1, cv2.LINE_AA, SHIFT)
    if own is not None and found.any():
        _draw_number(image, person_id, keypoints[found], width=width, color=own)


def _draw_number(
    image: NDArray[np.uint8], person_id: int, xy: NDArray[np.float32], *, width: float, color: tuple[int, int, int]
) -> None:
    """The id above the person's highest joint, or below it at the picture's upper edge."""
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
    """Of each joint, and of each edge."""
    joints = tuple(skeleton.side(joint) for joint in range(len(skeleton.joints)))
    return joints, tuple(skeleton.edge_side(edge) for edge in skeleton.edges)
