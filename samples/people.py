"""Crowds of synthetic people: joints with COCO's visibility, and whole pictures for training and tests."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from samples import body
from samples.head import hidden_face
from samples.outfit import random_outfit
from samples.paint import NOTHING, Canvas
from samples.person import FOOT, FOREARM, HAND, HEAD, PARTS, SHANK, SKIRT, THIGH, TORSO, UPPER_ARM, Person, draw_person
from samples.scenery import finish, foreground, scenery

JOINTS = 17
MIN_VISIBLE = 0.12  # people with a smaller visible share have no labelled joints, as in manual annotations
FAR_SIDE = 0.045  # a shoulder or hip this far (heights) behind the middle of the body is hidden by the body

# The parts on which a joint of the left side lies. A joint is visible if one of them is frontmost there.
_PARTS_AT = {
    body.SHOULDERS: (UPPER_ARM,),
    body.ELBOWS: (UPPER_ARM, FOREARM),
    body.WRISTS: (FOREARM, HAND),
    body.HIPS: (THIGH,),
    body.KNEES: (THIGH, SHANK),
    body.ANKLES: (SHANK, FOOT),
}
_TRUNK_AT = {body.SHOULDERS: (TORSO,), body.HIPS: (TORSO, SKIRT)}


def draw_picture(
    rng: np.random.Generator, size_wh: tuple[int, int], count: int
) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.float32]]:
    """A synthetic picture of `count` people and its labels.

    Returns the image (H, W, 3) uint8 BGR; keypoints (count, 17, 3) float32 x, y, v in pixels, pixel centres at +0.5,
    v as in `label_joints`; areas (count,) float32, the visible pixels of each person. People are ordered far to near.
    """
    width, height = size_wh
    canvas = Canvas(scenery(rng, size_wh), np.full((height, width), NOTHING, np.int32))
    people: list[Person] = []
    for _ in range(count):
        person = random_person(rng, size_wh)
        columns = [
            person.foot[0],
            *rng.uniform(0.04, 0.96, 2) * width,
        ]  # of three positions, use the one with most space
        clear = [
            min((abs(x - one.foot[0]) / (person.height + one.height) for one in people), default=0) for x in columns
        ]
        people.append(replace(person, foot=(float(columns[int(np.argmax(clear))]), person.foot[1])))
    people.sort(key=lambda one: one.height)
    alone = draw_crowd(canvas, people, light=float(rng.uniform(-0.6, 0.6)))
    if rng.random() < 0.15:
        colours, where = foreground(rng, size_wh)
        canvas.image[where] = colours[where]
        canvas.owner[where] = NOTHING
    keypoints, areas = label_crowd(canvas, people, alone)
    return finish(rng, canvas.image), keypoints, areas


def random_person(rng: np.random.Generator, size_wh: tuple[int, int]) -> Person:
    """A random person, at least partly in the picture, with 0.22 to 1.4 times the height of its short side."""
    width, height = size_wh
    tall = float(np.exp(rng.uniform(math.log(0.22), math.log(1.4)))) * min(width, height)
    figure = body.figure(body.random_pose(rng), body.random_build(rng))
    # most heads are in the picture; of a person who does not fit, the legs are outside
    head = float(rng.uniform(0.02, 0.5)) if rng.random() < 0.9 else float(rng.uniform(-0.4, 0.0))
    foot = float(rng.uniform(0.04, 0.96)) * width, head * max(height - tall, 0.35 * height) * 1.8 + tall
    pitch, roll = float(rng.uniform(-0.05, 0.25)), float(rng.normal(0, 0.05))
    return Person(figure, random_outfit(rng, tall), foot, tall, pitch, roll)


def draw_crowd(canvas: Canvas, people: Sequence[Person], light: float = -0.35) -> NDArray[np.float64]:
    """Paint people in the given order, far to near. Returns (P,): the pixels of each before the next is painted."""
    alone = np.zeros(len(people))
    for number, person in enumerate(people):
        draw_person(canvas, person, number, light)
        alone[number] = (canvas.owner // PARTS == number).sum()
    return alone


def label_crowd(
    canvas: Canvas, people: Sequence[Person], alone: NDArray[np.float64]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(P, 17, 3) keypoints and (P,) visible areas in square pixels. alone: the result of `draw_crowd`."""
    owners = canvas.owner[canvas.owner != NOTHING] // PARTS
    areas = np.bincount(owners, minlength=len(people)).astype(np.float32)
    keypoints = np.zeros((len(people), JOINTS, 3), np.float32)
    for number, person in enumerate(people):
        if areas[number] > MIN_VISIBLE * alone[number]:
            keypoints[number] = label_joints(canvas.owner, person, number)
    return keypoints, areas


def label_joints(owner: NDArray[np.int32], person: Person, number: int) -> NDArray[np.float32]:
    """(17, 3) float32 x, y, v of person `number` on a finished canvas.

    v as in COCO's annotations: 2 visible, 1 hidden, 0 (and x, y zero) outside the picture, or a feature of a face that
    is turned away.
    """
    points = person.project()
    height, width = owner.shape
    away = hidden_face(points[:, 2])
    farthest = points[[body.CHEST, body.PELVIS], 2].mean() - FAR_SIDE
    labelled = np.zeros((JOINTS, 3), np.float32)
    for joint in range(JOINTS):
        x, y, depth = points[joint]
        if not (0 <= x < width and 0 <= y < height) or joint in away:
            continue
        column, row = int(x), int(y)
        around = owner[max(0, row - 1) : row + 2, max(0, column - 1) : column + 2]
        seen = not {number * PARTS + part for part in _parts_at(joint)}.isdisjoint(around.ravel().tolist())
        if joint in (*body.SHOULDERS, *body.HIPS):
            seen = seen and depth > farthest
        labelled[joint] = x, y, 2 if seen else 1
    return labelled


def _parts_at(joint: int) -> tuple[int, ...]:
    for pair, parts in _PARTS_AT.items():
        if joint in pair:
            return tuple(part + pair.index(joint) for part in parts) + _TRUNK_AT.get(pair, ())
    return (HEAD,)
