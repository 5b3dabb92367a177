"""The joint sets, each in one place: names, edges, left-right pairs, grouping order, and the constants of OKS."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

JointSetName = Literal["coco", "crowdpose"]
Side = Literal["left", "right", "middle"]


@dataclass(frozen=True)
class JointSet:
    """K joints of a body.

    joints: their names in the model's order. edges: pairs of joint indices that a limb connects.
    grouping_order: the order in which grouping visits them, the most reliable first (Cheng et al. 2020, released code).
    sigmas: per-joint standard deviations of the OKS (COCO keypoint evaluation; CrowdPose's own evaluation).
    """

    name: JointSetName
    joints: tuple[str, ...]
    edges: tuple[tuple[int, int], ...]
    grouping_order: tuple[int, ...]
    sigmas: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.joints)

    @cached_property
    def flip(self) -> tuple[int, ...]:
        """For each joint, the index of its left-right counterpart."""
        other = {"left": "right", "right": "left"}
        twins = ["_".join(other.get(word, word) for word in name.split("_")) for name in self.joints]
        return tuple(self.joints.index(twin) for twin in twins)

    def side(self, joint: int) -> Side:
        """The person's side, not the image's."""
        name = self.joints[joint]
        return "left" if name.startswith("left") else "right" if name.startswith("right") else "middle"

    def edge_side(self, edge: tuple[int, int]) -> Side:
        """The side of an edge's joints. "middle" if they differ, but with nose or neck the other joint's."""
        sides = {self.side(joint) for joint in edge} - {"middle"}
        return sides.pop() if len(sides) == 1 else "middle"

    def index(self, name: str) -> int:
        """The joint of this name. Raises ValueError."""
        return self.joints.index(name)


_BODY_SIGMAS = (0.079, 0.079, 0.072, 0.072, 0.062, 0.062, 0.107, 0.107, 0.087, 0.087, 0.089, 0.089)  # shoulder to ankle
_COCO_ORDER = (0, 1, 2, 3, 4, 5, 6, 11, 12, 7, 8, 9, 10, 13, 14, 15, 16)

COCO = JointSet(
    "coco",
    (
        "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
        "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
        "right_ankle",
    ),
    (
        (0, 1), (0, 2), (1, 3), (2, 4), (5, 6), (5, 7), (7, 9), (6, 8), (8, 10), (5, 11), (6, 12), (11, 12),
        (11, 13), (13, 15), (12, 14), (14, 16),
    ),
    _COCO_ORDER,
    (0.026, 0.025, 0.025, 0.035, 0.035, *_BODY_SIGMAS),
)  # fmt: skip

CROWDPOSE = JointSet(
    "crowdpose",
    (
        "left_shoulder", "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hip",
        "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle", "head", "neck",
    ),
    (
        (12, 13), (13, 0), (13, 1), (0, 2), (2, 4), (1, 3), (3, 5), (0, 6), (1, 7), (6, 7), (6, 8), (8, 10), (7, 9),
        (9, 11),
    ),
    # The authors also list COCO's 17 indices here and use those below 14.
    tuple(joint for joint in _COCO_ORDER if joint < 14),
    (*_BODY_SIGMAS, 0.079, 0.079),
)  # fmt: skip

JOINT_SETS: dict[JointSetName, JointSet] = {"coco": COCO, "crowdpose": CROWDPOSE}


def find_joint_set(joints: int) -> JointSet | None:
    """The set of K joints; None if no set has K joints."""
    return next((found for found in JOINT_SETS.values() if len(found) == joints), None)


def joint_set_of(joints: int) -> JointSet:
    """The set of K joints. Raises ValueError if no set has K joints."""
    found = find_joint_set(joints)
    if found is None:
        known = ", ".join(f"{len(one)} ({one.name})" for one in JOINT_SETS.values())
        raise ValueError(f"no joint set has {joints} joints; known: {known}")
    return found


def sigmas_for(joints: int) -> tuple[float, ...]:
    """The OKS constants of K joints. If no set has K joints, every joint gets COCO's mean."""
    found = find_joint_set(joints)
    return found.sigmas if found is not None else (sum(COCO.sigmas) / len(COCO),) * joints
