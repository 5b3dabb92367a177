"""DecodeOptions: how heatmaps and tags become people, on the host and on the device."""

from __future__ import annotations

from dataclasses import dataclass

from core.joints import find_joint_set

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
        known = find_joint_set(joints)
        default = None if known is None else known.grouping_order
        return _checked(self.joint_order or default, joints, "joint_order")

    def flip_for(self, joints: int) -> tuple[int, ...]:
        """For each joint, its mirror twin. Raises ValueError as `order_for`."""
        known = find_joint_set(joints)
        return _checked(self.flip_order or (None if known is None else known.flip), joints, "flip_order")


def _checked(order: tuple[int, ...] | None, joints: int, name: str) -> tuple[int, ...]:
    if order is None:
        raise ValueError(f"{joints} joints have no default {name}; pass DecodeOptions({name}=…)")
    if len(order) != joints:
        raise ValueError(f"{name} has {len(order)} entries, the maps have {joints} joints")
    return order
