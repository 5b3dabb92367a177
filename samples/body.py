"""An articulated body: computes points in space from joint angles.

Units: the person's height is 1. Axes: x to the right of the picture, y down, z towards the camera. At yaw 0 a person
faces the camera, and their left side is at +x. Angles are in radians.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]

LEFT, RIGHT = 0, 1
SIDES = (1.0, -1.0)  # the sign of x of each side at yaw 0

# Lengths from anthropometric tables, as fractions of the height.
THIGH, SHANK, ANKLE = 0.245, 0.235, 0.042  # ANKLE: height of the ankle above the sole
HEEL, TOE = 0.035, 0.105  # behind and before the ankle
UPPER_ARM, FOREARM, HAND = 0.170, 0.150, 0.075
TORSO = 0.290  # hip joints to shoulder joints
NECK_TO_HEAD = 0.115  # shoulder line to the middle of the head
HEAD_UP, HEAD_DOWN = 0.062, 0.066  # from the middle of the head to its top and to the chin

# Joints 0..16 are COCO's; the others are only for drawing.
NOSE, EYES, EARS = 0, (1, 2), (3, 4)
SHOULDERS, ELBOWS, WRISTS = (5, 6), (7, 8), (9, 10)
HIPS, KNEES, ANKLES = (11, 12), (13, 14), (15, 16)
HANDS, HEELS, TOES = (17, 18), (19, 20), (21, 22)
PELVIS, CHEST, HEAD, HEAD_TOP, CHIN, MOUTH = 23, 24, 25, 26, 27, 28
NUM_POINTS = 29

# Head frame, in heights: x to the person's left, y down, z forward.
_FACE = {NOSE: (0, 0.010, 0.066), 1: (0.020, -0.008, 0.052), 2: (-0.020, -0.008, 0.052), 3: (0.047, 0.004, -0.004)}
_FACE |= {4: (-0.047, 0.004, -0.004), HEAD: (0, 0, 0), HEAD_TOP: (0, -HEAD_UP, 0), CHIN: (0, HEAD_DOWN, 0.008)}
_FACE |= {MOUTH: (0, 0.036, 0.054)}

Pair = tuple[float, float]  # left, right


@dataclass(frozen=True, kw_only=True)
class Pose:
    """Joint angles. thigh, arm and forearm swing forward in the plane of walking; `..._spread`: away from the body."""

    yaw: float = 0.0  # 0 faces the camera, pi / 2 the right edge of the picture
    lean: float = 0.0
    tilt: float = 0.0
    twist: float = 0.0  # of the shoulders relative to the hips
    head_yaw: float = 0.0  # relative to the shoulders
    head_pitch: float = 0.0
    thigh: Pair = (0.0, 0.0)
    thigh_spread: Pair = (0.04, 0.04)
    knee: Pair = (0.05, 0.05)
    arm: Pair = (0.0, 0.0)
    arm_spread: Pair = (0.12, 0.12)
    forearm: Pair = (0.25, 0.25)
    forearm_spread: Pair = (0.05, 0.05)


@dataclass(frozen=True)
class Build:
    """The proportions of a body."""

    shoulders: float = 0.105  # half the distance between the joints
    hips: float = 0.058
    girth: float = 1.0
    head: float = 1.0


@dataclass(frozen=True)
class Figure:
    """points: (NUM_POINTS, 3), the ground under the lower foot at y = 0. yaws: of the torso and of the head."""

    points: Points
    yaw: float
    head_yaw: float
    build: Build = field(default_factory=Build)


def figure(pose: Pose, build: Build | None = None) -> Figure:
    """The points of a body in this pose; the pelvis is at x = z = 0."""
    build = build or Build()
    points = np.zeros((NUM_POINTS, 3))
    hips = _rotation_y(pose.yaw)
    torso = _rotation_y(pose.yaw + pose.twist) @ _rotation_x(pose.lean) @ _rotation_z(pose.tilt)
    chest = torso @ np.array([0, -TORSO, 0])
    points[CHEST] = chest
    head_yaw = pose.yaw + pose.twist + pose.head_yaw
    head = _rotation_y(head_yaw) @ _rotation_x(pose.lean * 0.5 + pose.head_pitch)
    middle = chest + torso @ np.array([0, -NECK_TO_HEAD * 0.45, 0]) + head @ np.array([0, -NECK_TO_HEAD * 0.55, 0.012])
    for point, offset in _FACE.items():
        points[point] = middle + head @ (np.array(offset) * build.head)
    for side, sign in enumerate(SIDES):
        hip = hips @ np.array([sign * build.hips, 0, 0])
        knee = hip + THIGH * hips @ _swing(pose.thigh[side], pose.thigh_spread[side], sign)
        bend = pose.thigh[side] - pose.knee[side]
        ankle = knee + SHANK * hips @ _swing(bend, pose.thigh_spread[side] * 0.5, sign)
        pitch = min(bend + 0.40, 0.0) if bend < 0 else max(bend - 0.15, 0.0)  # within these the sole stays flat
        pitch = max(-1.0, min(pitch, 0.35))
        forward = hips @ np.array([sign * 0.15, -math.sin(pitch), math.cos(pitch)])
        down = hips @ np.array([0, math.cos(pitch), math.sin(pitch)])
        points[HIPS[side]], points[KNEES[side]], points[ANKLES[side]] = hip, knee, ankle
        points[HEELS[side]] = ankle + ANKLE * 0.55 * down - HEEL * forward
        points[TOES[side]] = ankle + ANKLE * 0.70 * down + TOE * forward

        shoulder = chest + torso @ np.array([sign * build.shoulders, 0.012, 0])
        elbow = shoulder + UPPER_ARM * torso @ _swing(pose.arm[side], pose.arm_spread[side], sign)
        along = torso @ _swing(pose.arm[side] + pose.forearm[side], pose.forearm_spread[side], sign)
        points[SHOULDERS[side]], points[ELBOWS[side]] = shoulder, elbow
        points[WRISTS[side]] = elbow + FOREARM * along
        points[HANDS[side]] = elbow + (FOREARM + HAND) * along
    soles = points[[*HEELS, *TOES], 1] + ANKLE * 0.4
    points[:, 1] -= soles.max()
    return Figure(points, pose.yaw + pose.twist * 0.5, head_yaw, build)


def gait(phase: float, *, yaw: float, energy: float = 1.0) -> Pose:
    """The pose at a phase of walking; 2 pi of `phase` are two steps. energy: 1 strolls, 1.6 runs."""
    angles = []
    for offset in (0.0, math.pi):
        swing = phase + offset
        thigh = energy * 0.42 * math.sin(swing) + 0.06
        # The knee bends most just before the thigh passes under the body on its way forward.
        knee = 0.05 + energy * 0.95 * ((1 + math.cos(swing + 0.45)) / 2) ** 3
        knee += 0.10 * ((1 + math.cos(swing + 3.6)) / 2) ** 2  # bends a little under the weight
        angles.append((thigh, knee, -energy * 0.38 * math.sin(swing), 0.22 + energy * 0.16 * (1 - math.sin(swing))))
    left, right = angles
    return Pose(
        yaw=yaw,
        lean=0.03 + 0.10 * (energy - 0.7),
        twist=0.13 * energy * math.sin(phase),
        head_yaw=-0.10 * energy * math.sin(phase),
        thigh=(left[0], right[0]),
        knee=(left[1], right[1]),
        arm=(left[2], right[2]),
        forearm=(left[3], right[3]),
        thigh_spread=(0.01, 0.01),
    )


def standing_side(phase: float) -> int:
    """The side whose foot is on the ground, which is the side whose thigh swings back."""
    return RIGHT if math.cos(phase) > 0 else LEFT


def stride(phase: float) -> float:
    """The distance walked at this phase, in heights, computed such that the foot on the ground does not slide."""
    table, length = _stride_table()
    turns, rest = divmod(phase / (2 * math.pi), 1.0)
    return float(turns * length + np.interp(rest, np.linspace(0, 1, len(table)), table))


def stride_length() -> float:
    """The distance of two steps, in heights."""
    return _stride_table()[1]


@cache
def _stride_table(steps: int = 240) -> tuple[Points, float]:
    """Distance walked at each of `steps` + 1 phases: the cumulative backward motion of the foot on the ground."""
    poses = [figure(gait(2 * math.pi * i / steps, yaw=0.0)).points[list(ANKLES)] for i in range(steps + 1)]
    feet = np.stack(poses)  # (steps + 1, 2, 3)
    on_ground = [standing_side(2 * math.pi * (i + 0.5) / steps) for i in range(steps)]
    back = (feet[:-1, :, 2] - feet[1:, :, 2])[np.arange(steps), on_ground]
    distance = np.concatenate([[0.0], np.cumsum(back)])
    return distance, float(distance[-1])


def random_pose(rng: np.random.Generator) -> Pose:
    """Walking, standing, raised arms, sitting, bending or random angles, in any direction, more often to the camera."""
    yaw = float(rng.normal(0, 0.7)) if rng.random() < 0.5 else float(rng.uniform(-math.pi, math.pi))
    kind = rng.choice(["walk", "stand", "raise", "sit", "bend", "any"], p=[0.34, 0.22, 0.18, 0.10, 0.06, 0.10])

    def pair(low: float, high: float) -> Pair:
        a, b = rng.uniform(low, high, 2)
        return float(a), float(b)

    if kind == "walk":
        pose = gait(float(rng.uniform(0, 2 * math.pi)), yaw=yaw, energy=float(rng.uniform(0.7, 1.6)))
    elif kind == "stand":
        pose = Pose(yaw=yaw, arm=pair(-0.3, 0.4), forearm=pair(0.0, 1.9), forearm_spread=pair(-0.7, 0.3))
        pose = replace(pose, thigh=pair(-0.1, 0.2), thigh_spread=pair(0, 0.2), arm_spread=pair(0.05, 0.5))
    elif kind == "raise":
        raised = pair(1.2, 3.0)
        which = int(rng.integers(0, 3))  # left, right or both
        spread = (raised[0] if which != RIGHT else 0.15, raised[1] if which != LEFT else 0.15)
        fore = tuple(s + float(rng.uniform(-0.6, 1.4)) if s > 1 else 0.1 for s in spread)
        pose = Pose(yaw=yaw, arm_spread=spread, forearm_spread=(fore[0], fore[1]), forearm=pair(-0.4, 0.4))
        pose = replace(pose, thigh_spread=pair(0, 0.25), arm=pair(-0.3, 0.3))
    elif kind == "sit":
        pose = Pose(yaw=yaw, thigh=pair(1.2, 1.7), knee=pair(1.1, 1.7), thigh_spread=pair(0, 0.3), arm=pair(0, 0.8))
        pose = replace(pose, forearm=pair(0.2, 1.3), lean=float(rng.uniform(-0.2, 0.4)), arm_spread=pair(0.05, 0.4))
    elif kind == "bend":
        pose = Pose(yaw=yaw, lean=float(rng.uniform(0.5, 1.3)), arm=pair(0.3, 1.6), forearm=pair(0, 0.8))
        pose = replace(pose, knee=pair(0.1, 1.0), thigh=pair(0.0, 0.6))
    else:
        pose = Pose(yaw=yaw, thigh=pair(-0.6, 1.3), knee=pair(0, 1.6), thigh_spread=pair(0, 0.6), arm=pair(-0.8, 2.6))
        pose = replace(pose, arm_spread=pair(0, 1.6), forearm=pair(0, 2.2), forearm_spread=pair(-0.5, 1.4))
        pose = replace(pose, lean=float(rng.uniform(-0.3, 0.7)), tilt=float(rng.normal(0, 0.2)))
    return replace(
        pose,
        head_yaw=pose.head_yaw + float(rng.normal(0, 0.35)),
        head_pitch=float(rng.normal(0.05, 0.15)),
        tilt=pose.tilt + float(rng.normal(0, 0.05)),
    )


def random_build(rng: np.random.Generator) -> Build:
    child = rng.random() < 0.12
    return Build(
        shoulders=float(rng.uniform(0.092, 0.120)),
        hips=float(rng.uniform(0.050, 0.066)),
        girth=float(rng.uniform(0.82, 1.35)),
        head=float(rng.uniform(1.25, 1.5) if child else rng.uniform(0.95, 1.12)),
    )


def _swing(flex: float, spread: float, sign: float) -> Points:
    """The direction of a limb; at (0, 0) it hangs down."""
    return np.array([
        sign * math.sin(spread),
        math.cos(spread) * math.cos(flex),
        math.cos(spread) * math.sin(flex),
    ])  # fmt: skip


def _rotation_y(angle: float) -> Points:
    c, s = math.cos(angle), math.sin(angle)
    return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])


def _rotation_x(angle: float) -> Points:
    """A positive angle moves points above the origin forward (towards +z)."""
    c, s = math.cos(angle), math.sin(angle)
    return np.array([[1, 0, 0], [0, c, s], [0, -s, c]])


def _rotation_z(angle: float) -> Points:
    c, s = math.cos(angle), math.sin(angle)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
