"""ModelSpec: a network's input and outputs. It is stored as JSON inside the ONNX file and beside the plan.

Standard library only: export, engine, pipeline and train all read it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from math import isfinite
from typing import Literal, Self

from core.joints import JOINT_SETS, JointSetName

METADATA_KEY = "higherpose.spec"  # the ONNX metadata property that holds the JSON
FORMAT = 1

Channels = tuple[float, float, float]  # a number for each of R, G, B
IMAGENET_MEAN: Channels = (0.485, 0.456, 0.406)
IMAGENET_STD: Channels = (0.229, 0.224, 0.225)
LARGEST_SIDE = 4096  # largest input side that a command line accepts
LONGEST_NAME = 200
SIDE_MULTIPLE = 64  # both sides of the input; the deepest branch runs at 1/32, see grouping section "Size and warp"

Precision = Literal["fp32", "fp16"]


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """The contract of one exported network.

    Input `image`: (N, 3, H, W) RGB, `(pixel / 255 - mean) / std`, float32 or float16 (`precision`), N H W dynamic
    unless `fixed_hw` is set. Outputs, always float32: `heatmaps` (N, K, H/2, W/2), both resolutions averaged, and
    `tags` (N, D * K, H/4, W/4), D = `tag_dims`: all joints' first components, then, with D = 2, all second components.
    """

    name: str
    joint_set: JointSetName = "coco"
    short_side: int = 512  # the frame's short side becomes this many pixels; ignored when fixed_hw is set
    fixed_hw: tuple[int, int] | None = None
    precision: Precision = "fp32"
    mean: Channels = IMAGENET_MEAN
    std: Channels = IMAGENET_STD
    tag_dims: Literal[1, 2] = 1  # numbers per tag; the distance of two tags separates people

    def __post_init__(self) -> None:
        if self.joint_set not in JOINT_SETS:
            raise ValueError(f"joint_set is {self.joint_set!r}; expected one of {', '.join(JOINT_SETS)}")
        if self.precision not in ("fp32", "fp16"):
            raise ValueError(f"precision is {self.precision!r}; expected fp32 or fp16")
        if self.short_side < SIDE_MULTIPLE or self.short_side % SIDE_MULTIPLE:
            raise ValueError(f"short_side is {self.short_side}; expected a positive multiple of {SIDE_MULTIPLE}")
        if self.fixed_hw is not None and any(s <= 0 or s % SIDE_MULTIPLE for s in self.fixed_hw):
            raise ValueError(f"fixed_hw is {self.fixed_hw}; expected positive multiples of {SIDE_MULTIPLE}")
        if self.tag_dims not in (1, 2):
            raise ValueError(f"tag_dims is {self.tag_dims!r}; expected 1 or 2")
        if not isinstance(self.name, str) or len(self.name) > LONGEST_NAME:
            raise ValueError(f"name is {str(self.name)[:80]!r}; expected text of at most {LONGEST_NAME} characters")
        numbers = (*self.mean, *self.std)
        if len(self.mean) != 3 or len(self.std) != 3 or not all(map(isfinite, numbers)) or min(self.std) <= 0:
            raise ValueError(f"mean {self.mean} and std {self.std} must be three finite numbers each, std positive")

    @property
    def num_joints(self) -> int:
        return len(JOINT_SETS[self.joint_set])

    @property
    def tag_channels(self) -> int:
        """Channels of the output `tags`: D * K."""
        return self.tag_dims * self.num_joints

    def misfit(self, output: str, channels: int) -> str | None:
        """None if `output` ("heatmaps" or "tags") should have `channels` channels, else the mismatch as text."""
        if channels == (self.tag_channels if output == "tags" else self.num_joints):
            return None
        numbers = " by two numbers" if output == "tags" and self.tag_dims == 2 else ""
        return f"{channels} channels; its spec says {self.num_joints} joints{numbers}"

    @property
    def input_dtype(self) -> str:
        """NumPy name of the input's type."""
        return "float16" if self.precision == "fp16" else "float32"

    def to_json(self) -> str:
        return json.dumps({"format": FORMAT, **asdict(self)}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The spec that `to_json` wrote. Raises ValueError for anything else, unknown fields included."""
        try:
            raw = json.loads(text)
            version = raw.pop("format")
        except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
            raise ValueError(f"not a HigherPose model spec: {text[:80]!r}") from error
        if version != FORMAT:
            raise ValueError(f"model spec has format {version!r}, this version reads {FORMAT}; export the model again")
        known = {field.name for field in fields(cls)}
        if not known >= raw.keys():
            raise ValueError(f"model spec has unknown fields {sorted(raw.keys() - known)}; export the model again")
        for name in ("fixed_hw", "mean", "std"):
            if isinstance(raw.get(name), list):
                raw[name] = tuple(raw[name])
        try:
            return cls(**raw)
        except TypeError as error:
            raise ValueError(f"model spec is incomplete: {error}") from error
