"""Draws one person: a figure in an outfit, painted part by part from far to near."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from samples import body
from samples.head import Look, draw_head, draw_long_hair
from samples.outfit import Outfit
from samples.paint import Canvas, Cloth, limb

PARTS = 32  # a pixel's label is person * PARTS + part
UPPER_ARM, FOREARM, HAND, THIGH, SHANK, FOOT = 1, 3, 5, 7, 9, 11  # the left one; the right one is one more
TORSO, NECK, HEAD, HAIR, SKIRT = 13, 14, 15, 16, 17

Point = tuple[float, float]


@dataclass(frozen=True)
class Person:
    """A figure at a position. foot: the point in the picture on the ground under the pelvis; height: in pixels, when
    standing."""

    figure: body.Figure
    outfit: Outfit
    foot: Point
    height: float
    pitch: float = 0.06  # of the camera, downwards
    roll: float = 0.0

    def project(self) -> NDArray[np.float64]:
        """(NUM_POINTS, 3): x, y in pixels, pixel centres at +0.5, and depth in heights, larger is nearer."""
        x, y, z = self.figure.points.T
        cos, sin = math.cos(self.pitch), math.sin(self.pitch)
        y, depth = y * cos + z * sin, z * cos - y * sin
        cos, sin = math.cos(self.roll), math.sin(self.roll)
        x, y = x * cos - y * sin, x * sin + y * cos
        return np.stack([self.foot[0] + x * self.height, self.foot[1] + y * self.height, depth], axis=1)


def draw_person(canvas: Canvas, person: Person, number: int, light: float = -0.35) -> None:
    """Paint one person in front of the canvas's content; the labels are number * PARTS + part.

    Parts at the same depth are painted in the order legs, torso, head, arms.
    """
    painter = _Painter(canvas, person, number, light)
    depth = painter.points[:, 2]
    middle, head = float(depth[[body.CHEST, body.PELVIS]].mean()), float(depth[body.HEAD])
    layers: list[tuple[float, Callable[[], None]]] = [(middle + 0.02, painter.torso), (head + 0.03, painter.head)]
    if person.outfit.long_hair:  # in front of the head only if the person is seen from behind
        layers.append((head - 0.01 - 0.10 * math.cos(person.figure.head_yaw), painter.long_hair))
    for side in (body.LEFT, body.RIGHT):
        leg = float(depth[[body.HIPS[side], body.KNEES[side]]].mean())
        arm = float(depth[[body.SHOULDERS[side], body.ELBOWS[side], body.WRISTS[side]]].mean())
        layers += [(leg - 0.02, partial(painter.leg, side)), (arm + 0.04, partial(painter.arm, side))]
    for _, layer in sorted(layers, key=lambda pair: pair[0]):
        layer()


class _Painter:
    """Paints the layers of one person. Radii are in heights."""

    def __init__(self, canvas: Canvas, person: Person, number: int, light: float) -> None:
        self.canvas, self.person, self.light = canvas, person, light
        self.wear, self.build = person.outfit, person.figure.build
        self.girth = 0.4 + 0.6 * self.build.girth
        self.first_label = number * PARTS
        self.points = person.project()
        self.at = [(float(x), float(y)) for x, y in self.points[:, :2]]
        labels = (self.first_label + HEAD, self.first_label + HAIR)
        self.look = Look(self.points, person.height * self.build.head, person.figure.head_yaw, self.wear, labels, light)

    def paint(
        self, ends: tuple[Point, Point], radii: Sequence[float], cloth: Cloth, part: int, *, hem: bool = False
    ) -> None:
        scaled = tuple(r * self.person.height for r in radii)
        limb(self.canvas, *ends, scaled, cloth, label=self.first_label + part, light=self.light, hem=hem)

    def leg(self, side: int) -> None:
        wear, girth = self.wear, self.girth
        hip, knee, ankle = (self.at[joints[side]] for joints in (body.HIPS, body.KNEES, body.ANKLES))
        self.paint(
            (self.at[body.HEELS[side]], self.at[body.TOES[side]]), (0.021, 0.019, 0.014), wear.shoes, FOOT + side
        )
        self.paint((knee, ankle), (0.032 * girth, 0.036 * girth, 0.019), wear.skin, SHANK + side)
        self.paint((hip, knee), (0.050 * girth, 0.034 * girth), wear.skin, THIGH + side)
        if wear.leg > 1:
            radii = 0.036 * girth, 0.035 * girth * wear.loose, 0.028 * wear.loose
            self.paint((knee, ankle), radii, wear.bottom, SHANK + side, hem=True)
        if wear.leg > 0:
            cloth = hip, _between(hip, knee, min(wear.leg, 1.0))
            wide = 0.055 * girth, 0.037 * girth * wear.loose
            self.paint(cloth, wide, wear.bottom, THIGH + side, hem=wear.leg < 1)

    def arm(self, side: int) -> None:
        wear, girth = self.wear, self.girth
        shoulder, elbow, wrist = (self.at[joints[side]] for joints in (body.SHOULDERS, body.ELBOWS, body.WRISTS))
        upper, fore = (0.031 * girth, 0.025 * girth), (0.024 * girth, 0.024 * girth, 0.016)
        self.paint((wrist, self.at[body.HANDS[side]]), (0.015, 0.020, 0.012), wear.skin, HAND + side)
        self.paint((elbow, wrist), fore, wear.skin, FOREARM + side)
        self.paint((shoulder, elbow), upper, wear.skin, UPPER_ARM + side)
        if wear.sleeve > 1:
            self.paint((elbow, wrist), [r * 1.1 * wear.loose for r in fore], wear.top, FOREARM + side, hem=True)
        if wear.sleeve > 0:
            sleeve = shoulder, _between(shoulder, elbow, min(wear.sleeve, 1.0))
            wide = [r * 1.1 * wear.loose for r in upper]
            self.paint(sleeve, wide, wear.top, UPPER_ARM + side, hem=wear.sleeve < 1)

    def torso(self) -> None:
        build, wear, girth, height = self.build, self.wear, self.girth, self.person.height
        facing, aside = abs(math.cos(self.person.figure.yaw)), abs(math.sin(self.person.figure.yaw))
        half = (build.shoulders * 0.85, build.shoulders * 1.08, build.shoulders * 0.95, 0.080 * build.girth)
        deep = (0.045, 0.062, 0.064 * build.girth, 0.060 * build.girth)
        chest = [math.hypot(a * facing, b * aside) for a, b in zip(half, deep, strict=True)]
        seat = math.hypot((build.hips + 0.028) * girth * facing, 0.060 * girth * aside)
        shoulders, pelvis = self.at[body.CHEST], self.at[body.PELVIS]
        lower = _between(shoulders, pelvis, 0.7), _between(shoulders, pelvis, 0.94)
        self.paint(lower, (chest[3], seat), wear.bottom, TORSO)
        # the rounded end reaches one radius beyond the shoulders, so the shirt starts lower by one radius
        reach = min(chest[0] * height / max(math.dist(shoulders, pelvis), 1.0), 0.7)
        shirt = _between(shoulders, pelvis, reach - 0.06), _between(shoulders, pelvis, 0.98)
        self.paint(shirt, (*chest, seat * 1.06), wear.top, TORSO, hem=True)
        collar = _between(shoulders, self.at[body.HEAD], 0.25)
        for side in (body.LEFT, body.RIGHT):
            self.paint((collar, self.at[body.SHOULDERS[side]]), (0.026, 0.033 * girth), wear.top, TORSO)
        if wear.skirt:
            left, right = self.at[body.KNEES[body.LEFT]], self.at[body.KNEES[body.RIGHT]]
            spread = math.dist(left, right) * 0.5 * wear.skirt / height
            skirt = _between(shoulders, pelvis, 0.85), _between(pelvis, _between(left, right, 0.5), wear.skirt)
            self.paint(skirt, (chest[3] * 0.9, seat * 1.1, seat + spread), wear.bottom, SKIRT, hem=True)

    def head(self) -> None:
        neck = _between(self.at[body.CHEST], self.at[body.HEAD], 0.1), self.at[body.HEAD]
        self.paint(neck, (0.032 * self.girth, 0.027), self.wear.skin, NECK)
        draw_head(self.canvas, self.look)

    def long_hair(self) -> None:
        draw_long_hair(self.canvas, self.look)


def _between(a: Point, b: Point, share: float) -> Point:
    return a[0] + (b[0] - a[0]) * share, a[1] + (b[1] - a[1]) * share
