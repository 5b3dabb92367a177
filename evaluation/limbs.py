"""Detects skeletons with impossible limbs: a measure of the drawn result that needs no annotations."""

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
MAX_LIMB = 2.0  # times the person's torso
SLACK_PX = 6.0  # for the error of keypoints
MAX_TORSO = 6.0  # times the frame's median torso


def impossible_limbs(people: People) -> NDArray[np.bool_]:
    """(P,): True if a limb is longer than twice the person's torso + 6 px, or the torso over six times the frame's
    median torso.

    Limbs are upper arms, forearms, thighs, shins, shoulders and hips. A torso is the mean of the found shoulder-hip
    distances; if none was found, the frame's median. Raises ValueError for a joint set without names.
    """
    found = people.keypoint_scores > 0
    names = joint_set_of(found.shape[1]).joints
    sides, both_found = _lengths(people, found, names, TORSOS)
    has_torso = both_found.any(axis=1)
    torso = sides.sum(axis=1) / np.maximum(both_found.sum(axis=1), 1)
    median = float(np.median(torso[has_torso])) if has_torso.any() else np.inf
    torso = np.where(has_torso, torso, median)
    limbs, _ = _lengths(people, found, names, LIMBS)
    has_long_limb = (limbs > MAX_LIMB * torso[:, None] + SLACK_PX).any(axis=1)
    return np.asarray(has_long_limb | (torso > MAX_TORSO * median), np.bool_)


def _lengths(
    people: People, found: NDArray[np.bool_], names: tuple[str, ...], pairs: tuple[tuple[str, str], ...]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """(P, E) pixels between each pair of joints, 0 if one is missing; and (P, E), whether both were found."""
    a, b = (np.array([names.index(pair[end]) for pair in pairs]) for end in (0, 1))
    both_found = found[:, a] & found[:, b]
    xy = people.keypoints.astype(np.float64)
    return np.where(both_found, np.linalg.norm(xy[:, a] - xy[:, b], axis=2), 0), both_found
