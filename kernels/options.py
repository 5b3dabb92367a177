"""DecodeOptions, and the joint orders of COCO 17 and CrowdPose 14. Shared by the host and the device decode."""

from __future__ import annotations

from dataclasses import dataclass

# The order in which grouping walks the joints: stable ones first (nose to shoulders, hips, then limbs).
COCO_ORDER = (0, 1, 2, 3, 4, 5, 6, 11, 12, 7, 8, 9, 10, 13, 14, 15, 16)
COCO_FLIP = (0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15)
# CrowdPose: shoulders, elbows, wrists, hips, knees, ankles, head, neck. The authors' joint order lists COCO's 17
# indices here too and uses those below 14.
CROWDPOSE_ORDER = tuple(j for j in COCO_ORDER if j < 14)
CROWDPOSE_FLIP = (1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 12, 13)

# Per-joint standard deviations of the OKS (COCO keypoint evaluation; CrowdPose's own evaluation).
_BODY_SIGMAS = (0.079, 0.079, 0.072, 0.072, 0.062, 0.062, 0.107, 0.107, 0.087, 0.087, 0.089, 0.089)  # shoulder to ankle
COCO_SIGMAS = (0.026, 0.025, 0.025, 0.035, 0.035, *_BODY_SIGMAS)
CROWDPOSE_SIGMAS = (*_BODY_SIGMAS, 0.079, 0.079)

MAX_PEOPLE_LIMIT = 128


@dataclass(frozen=True, kw_only=True)
class DecodeOptions:
    """How heatmaps and tags become people. The defaults are the authors' COCO W32-512 configuration.

    max_people: peaks kept per joint, and groups kept per frame.
    threshold: a peak is a candidate if its heatmap value is above this (strict).
    tag_threshold: a candidate joins a person if their tag distance is below this (strict, unrounded).
    nms_size: side of the square window whose maximum a peak must be; odd.
    project: decode at the network's input resolution (maps interpolated on the fly) instead of the heatmaps' own.
    adjust: move each joint a quarter cell towards its larger neighbour.
    refine: fill each person's missing joints from the maps.
    joint_order, flip_order: None chooses by K (17: COCO, 14: CrowdPose).

    The output filter, off by default: the authors keep every stray peak, and evaluation must too.
    min_score: drop people whose score is below this; applied before refine.
    min_joint: zero joints whose value is below this; applied last, and never changes a score.
    duplicate_oks: of two people whose OKS is above this, drop the one with the lower score (ties: the later).
    """

    max_people: int = 30
    threshold: float = 0.1
    tag_threshold: float = 1.0
    nms_size: int = 5
    project: bool = True
    adjust: bool = True
    refine: bool = True
    joint_order: tuple[int, ...] | None = None
    flip_order: tuple[int, ...] | None = None
    min_score: float = 0.0
    min_joint: float = 0.0
    duplicate_oks: float | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.max_people <= MAX_PEOPLE_LIMIT:
            raise ValueError(f"max_people is {self.max_people}; expected 1 to {MAX_PEOPLE_LIMIT}")
        if self.nms_size < 1 or self.nms_size % 2 == 0:
            raise ValueError(f"nms_size is {self.nms_size}; expected a positive odd number")
        if not self.threshold >= 0:
            raise ValueError(f"threshold is {self.threshold}; expected a number >= 0")
        if not self.tag_threshold > 0:
            raise ValueError(f"tag_threshold is {self.tag_threshold}; expected a number > 0")
        for name in ("min_score", "min_joint"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected 0 to 1")
        if self.duplicate_oks is not None and not 0 < self.duplicate_oks <= 1:
            raise ValueError(f"duplicate_oks is {self.duplicate_oks}; expected None or a number in (0, 1]")
        for name in ("joint_order", "flip_order"):
            order = getattr(self, name)
            if order is not None and sorted(order) != list(range(len(order))):
                raise ValueError(f"{name} is {order}; expected a permutation of 0..K-1")

    def order_for(self, joints: int) -> tuple[int, ...]:
        """The joint order for K joints. Raises ValueError where K has no default and none was given."""
        return _pick(self.joint_order, joints, {17: COCO_ORDER, 14: CROWDPOSE_ORDER}, "joint_order")

    def flip_for(self, joints: int) -> tuple[int, ...]:
        """For each joint, its mirror twin. Raises ValueError as `order_for`."""
        return _pick(self.flip_order, joints, {17: COCO_FLIP, 14: CROWDPOSE_FLIP}, "flip_order")


def sigmas_for(joints: int) -> tuple[float, ...]:
    """The OKS constants of K joints; other joint sets get COCO's mean for every joint."""
    known = {17: COCO_SIGMAS, 14: CROWDPOSE_SIGMAS}
    return known.get(joints, (sum(COCO_SIGMAS) / len(COCO_SIGMAS),) * joints)


def _pick(given: tuple[int, ...] | None, joints: int, known: dict[int, tuple[int, ...]], name: str) -> tuple[int, ...]:
    order = given if given is not None else known.get(joints)
    if order is None:
        raise ValueError(f"{joints} joints have no default {name}; pass DecodeOptions({name}=…)")
    if len(order) != joints:
        raise ValueError(f"{name} has {len(order)} entries, the maps have {joints} joints")
    return order
