"""Draws skeletons on frames. Limbs are coloured by body side; joints, trunk and number in the colour of the id.

`kernels.cpu.paint` paints limbs and joints, in a third of the time of OpenCV's lines and circles; OpenCV draws text.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from core.joints import Side, joint_set_of
from pipeline.labels import KNOWN_IDS, draw_labels, id_color
from pipeline.types import People

# BGR. Warm for right, cool for left: distinguishable with the common colour vision deficiencies too.
COLORS: dict[Side, tuple[int, int, int]] = {"left": (255, 176, 56), "right": (44, 126, 255), "middle": (110, 222, 120)}
OUTLINE = (24, 24, 24)
WIDTH_PER_HEIGHT = 1 / 75  # width of a limb's line per height of the person
WIDTHS = (1.5, 9.0)  # smallest and largest
FONT = cv2.FONT_HERSHEY_SIMPLEX


class _Strokes(NamedTuple):
    """What `paint` draws of a person: the outlines of all limbs, the limbs, and an outline and a disc for each joint.

    ends: (S, 2) int64, joints. kinds: (S,) int64, columns of `_radii`. colours: (S, 3) uint8.
    """

    ends: NDArray[np.int64]
    kinds: NDArray[np.int64]
    colours: NDArray[np.uint8]


def draw_people(image: NDArray[np.uint8], people: People) -> NDArray[np.uint8]:
    """Draw onto `image` (H, W, 3) uint8 BGR, in place, and return it. Joints with score 0 are not drawn.

    Lines and dots scale with the person's height. Smaller people, mostly farther away, are drawn first, labels last. A
    person with an id is drawn in the id's colour, with its number. Joints whose coordinates are not finite are not
    drawn either.
    """
    from kernels.cpu import paint  # here: Numba is not needed to import the pipeline

    if not len(people):
        return image
    if not image.flags.c_contiguous:
        image[...] = draw_people(np.ascontiguousarray(image), people)
        return image
    found = (people.keypoint_scores > 0) & np.isfinite(people.keypoints).all(axis=2)
    # keypoints have pixel centres at +0.5, `paint` at 0; it neither paints NaN nor what is too far away
    limit = 8 * max(image.shape[:2])
    xy = np.where(found[..., None], np.clip(people.keypoints, -limit, limit) - 0.5, np.nan)
    xy = xy.astype(np.float64, order="C")
    low = np.fmin.reduce(xy, axis=1)  # (P, 2); of the found joints: fmin ignores NaN
    sizes = np.fmax.reduce(xy, axis=1) - low
    heights = np.nan_to_num(sizes.max(axis=1))
    widths = np.clip(heights * WIDTH_PER_HEIGHT, *WIDTHS)
    radii = _radii(widths)
    for person in np.argsort(heights, kind="stable"):
        person_id = int(people.ids[person])
        ends, kinds, colours = _strokes(people.keypoint_scores.shape[1], person_id)
        paint(image, xy[person], ends, radii[person].take(kinds), colours)
    shown = np.flatnonzero((people.ids != 0) & found.any(axis=1))
    if len(shown):
        tops = np.stack([low[shown, 0] + sizes[shown, 0] / 2, low[shown, 1], heights[shown]], axis=1)
        draw_labels(image, people.ids[shown].tolist(), tops)
    return image


def warm_up() -> None:
    """Compile `draw_people`, or load it from the cache of `kernels.cpu`, so that the first frame does not wait."""
    one = np.ones((1, 17), np.float32)
    draw_people(np.zeros((8, 8, 3), np.uint8), People(np.ones((1, 17, 2), np.float32), one, one[:, 0]))


def draw_caption(image: NDArray[np.uint8], text: str) -> NDArray[np.uint8]:
    """Draw a line of outlined text in the upper left corner, scaled with the frame; in place."""
    scale = max(0.45, image.shape[0] / 900)
    origin = (round(12 * scale), round(30 * scale))
    cv2.putText(image, text, origin, FONT, scale, OUTLINE, max(2, round(4 * scale)), cv2.LINE_AA)
    cv2.putText(image, text, origin, FONT, scale, (255, 255, 255), max(1, round(1.6 * scale)), cv2.LINE_AA)
    return image


def _radii(widths: NDArray[np.float64]) -> NDArray[np.float64]:
    """(P, 6) for P people: of a limb's outline and the limb, of a joint's outline and its disc, and of eyes and ears.

    The constant parts keep small people visible. A joint is wide enough to cover the ends of its limbs.
    """
    limb, disc, small = widths / 2 + 0.9, widths * 1.05 + 0.5, widths * 0.735 + 0.5
    rim = np.maximum(1, widths * 0.35)
    return np.stack([limb + np.maximum(1, widths * 0.3), limb, disc + rim, disc, small + rim, small], axis=1)


@lru_cache(maxsize=KNOWN_IDS)
def _strokes(joints: int, person_id: int) -> _Strokes:
    """joints: how many a person has. person_id: 0 for none, which leaves all colours to the sides."""
    skeleton = joint_set_of(joints)
    sides = [skeleton.edge_side(edge) for edge in skeleton.edges]
    limbs = [id_color(person_id) if person_id and side == "middle" else COLORS[side] for side in sides]
    ends, kinds = [*skeleton.edges, *skeleton.edges], [0] * len(limbs) + [1] * len(limbs)
    colours = [OUTLINE] * len(limbs) + limbs  # all outlines first, so that none covers another limb
    for joint, name in enumerate(skeleton.joints):
        ends += [(joint, joint)] * 2
        kinds += [4, 5] if name.endswith(("eye", "ear")) else [2, 3]
        colours += [OUTLINE, id_color(person_id) if person_id else _light(COLORS[skeleton.side(joint)])]
    return _Strokes(np.array(ends, np.int64), np.array(kinds, np.int64), np.array(colours, np.uint8))


def _light(color: tuple[int, int, int]) -> tuple[int, int, int]:
    b, g, r = ((3 * 255 + 2 * c) // 5 for c in color)
    return b, g, r
