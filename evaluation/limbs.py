"""How many of the found people no body could be: a measure of what is drawn, that needs no annotations."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from core.joints import joint_set_of
from pipeline.types import People

LIMBS = (
    ("left_shoulder", "left_elbow"), ("left_elbow", "left_wrist"), ("left_hip", "left_knee"),
    ("left_knee", "left_ankle"), ("right_shoulder", "right_elbow"), ("right_elbow", "right_wrist"),
    ("right_hip", "right_knee"), ("right_knee", "right_ankle"), ("left_shoulder", "right_shoulder"),
    ("left_hip", "right_hip"),
)  # fmt: skip
TORSOS = (("left_shoulder", "left_hip"), ("right_shoulder", "right_hip"))
LONGEST = 2.0  # times the own torso
SLACK_PX = 6.0  # for the keypoints' own error
LARGEST = 6.0  # times the frame's median torso


def impossible_limbs(people: People) -> NDArray[np.bool_]:
    """(P,): whose limb is longer than twice the own torso + 6 px, or whose torso is over six times the frame's median.

    Limbs are upper arms, forearms, thighs, shins, shoulders and hips. A torso is the mean of the shoulder-hip
    distances that are there; where none is, the frame's median. Raises ValueError for a joint set without names.
    """
    found = people.keypoint_scores > 0
    names = joint_set_of(found.shape[1]).joints
    torso, there = _lengths(people, found, names, TORSOS)
    whole = there.any(axis=1)
    own = torso.sum(axis=1) / np.maximum(there.sum(axis=1), 1)
    median = float(np.median(own[whole])) if whole.any() else np.inf
    own = np.where(whole, own, median)
    limbs, _ = _lengths(people, found, names, LIMBS)
    long = (limbs > LONGEST * own[:, None] + SLACK_PX).any(axis=1)
    return np.asarray(long | (own > LARGEST * median), np.bool_)


def _lengths(
    people: People, found: NDArray[np.bool_], names: tuple[str, ...], pairs: tuple[tuple[str, str], ...]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """(P, E) pixels between each pair of joints, 0 where one is missing; and (P, E) whether both are there."""
    a, b = (np.array([names.index(pair[end]) for pair in pairs]) for end in (0, 1))
    there = found[:, a] & found[:, b]
    xy = people.keypoints.astype(np.float64)
    return np.where(there, np.linalg.norm(xy[:, a] - xy[:, b], axis=2), 0), there
