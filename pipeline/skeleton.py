"""Joint names and edges of the joint sets, for drawing. How joints are decoded is in kernels.options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from engine.spec import JointSet

Side = Literal["left", "right", "middle"]


@dataclass(frozen=True)
class Skeleton:
    """joints: K names in the model's order. edges: pairs of joint indices that a limb connects."""

    joints: tuple[str, ...]
    edges: tuple[tuple[int, int], ...]

    def side(self, joint: int) -> Side:
        """Of the person, not of the picture."""
        name = self.joints[joint]
        return "left" if name.startswith("left") else "right" if name.startswith("right") else "middle"

    def edge_side(self, edge: tuple[int, int]) -> Side:
        """The side of an edge's joints; "middle" where they differ, but a nose or neck takes its neighbour's."""
        sides = {self.side(joint) for joint in edge} - {"middle"}
        return sides.pop() if len(sides) == 1 else "middle"


COCO = Skeleton(
    (
        "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
        "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
        "right_ankle",
    ),
    (
        (0, 1), (0, 2), (1, 3), (2, 4), (5, 6), (5, 7), (7, 9), (6, 8), (8, 10), (5, 11), (6, 12), (11, 12),
        (11, 13), (13, 15), (12, 14), (14, 16),
    ),
)  # fmt: skip

CROWDPOSE = Skeleton(
    (
        "left_shoulder", "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hip",
        "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle", "head", "neck",
    ),
    (
        (12, 13), (13, 0), (13, 1), (0, 2), (2, 4), (1, 3), (3, 5), (0, 6), (1, 7), (6, 7), (6, 8), (8, 10), (7, 9),
        (9, 11),
    ),
)  # fmt: skip

SKELETONS: dict[JointSet, Skeleton] = {"coco": COCO, "crowdpose": CROWDPOSE}


def skeleton_for(joints: int) -> Skeleton:
    """The skeleton of K joints. Raises ValueError for a K that no joint set has."""
    for skeleton in SKELETONS.values():
        if len(skeleton.joints) == joints:
            return skeleton
    raise ValueError(f"no skeleton has {joints} joints; known: 17 (COCO), 14 (CrowdPose)")
