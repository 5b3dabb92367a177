"""MoveNet MultiPose's network up to its heatmaps: MobileNetV2 x1.75 (Sandler et al. 2018), a feature pyramid, a branch.

Batch-norm is folded into the biases already, as in the published weights (train/warm_start.py reads them). Of these the
last blocks hold two thirds, and are pruned (train/prune.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

Block = tuple[int, int, int]  # hidden channels, channels, stride

STEM, FIRST = 48, 24  # channels after the stem, and after the first block, which has no hidden layer
PUBLISHED: tuple[Block, ...] = (
    (144, 40, 2), (240, 40, 1),
    (240, 48, 2), (288, 48, 1), (288, 48, 1),
    (288, 96, 2), (576, 96, 1), (576, 96, 1), (576, 96, 1), (576, 144, 1), (864, 144, 1), (864, 144, 1),
    (864, 240, 2), (1440, 240, 1), (1440, 240, 1), (1440, 480, 1),
)  # fmt: skip
PUBLISHED_TOP = 1280
PRUNED = {10: 640, 11: 640, 12: 640, 13: 720, 14: 720, 15: 720}  # block, counted from 0: hidden channels
PRUNED_TOP = 512
BLOCKS = tuple((PRUNED.get(i, hidden), channels, stride) for i, (hidden, channels, stride) in enumerate(PUBLISHED))
SLIGHTLY = {14: 1280, 15: 960}  # so that half-precision weights stay under 8 MB
NEARLY_WHOLE_TOP = 512
NEARLY_WHOLE = tuple((SLIGHTLY.get(i, hidden), out, stride) for i, (hidden, out, stride) in enumerate(PUBLISHED))
TAPS = (1, 4, 8)  # blocks, counted from 0, whose output the pyramid reads: 1/4, 1/8, 1/16
DETAIL = PUBLISHED[TAPS[0]][1]  # channels at 1/4, before the pyramid
MIDDLE = PUBLISHED[TAPS[1]][1]  # at 1/8, likewise
CONTEXT = 64  # at 1/16, the pyramid's top
FEATURES = 24  # at 1/4, the pyramid's end
BRANCH = 96  # hidden channels of the heatmaps


class Parts(NamedTuple):
    """What the backbone gives for images (N, 3, H, W).

    logits: (N, joints, H/4, W/4), of the heatmaps. features: (N, 24, H/4, W/4), the pyramid's. detail: (N, 40, H/4,
    W/4), and middle: (N, 48, H/8, W/8), from before the pyramid. context: (N, 64, H/16, W/16), its top.
    """

    logits: Tensor
    features: Tensor
    detail: Tensor
    middle: Tensor
    context: Tensor


class MoveNet(nn.Module):
    """image (N, 3, H, W) in -1..1, sides multiples of 32 -> Parts. blocks, top: as published, or pruned."""

    def __init__(self, joints: int = 17, blocks: Sequence[Block] = BLOCKS, top: int = PRUNED_TOP) -> None:
        super().__init__()
        self.shapes = tuple(blocks)
        self.stem = nn.Conv2d(3, STEM, 3, stride=2)
        self.depthwise = nn.Conv2d(STEM, STEM, 3, padding=1, groups=STEM)
        self.project = nn.Conv2d(STEM, FIRST, 1)
        self.blocks = nn.ModuleList()
        channels = FIRST
        for hidden, out, stride in blocks:
            self.blocks.append(InvertedResidual(channels, hidden, out, stride))
            channels = out
        self.top = nn.Conv2d(channels, top, 1)
        widths = [blocks[tap][1] for tap in TAPS]
        self.lateral32 = nn.Conv2d(top, CONTEXT, 1)
        self.lateral16 = nn.Conv2d(widths[2], CONTEXT, 1)
        self.lateral8 = nn.Conv2d(widths[1], 32, 1)
        self.lateral4 = nn.Conv2d(widths[0], FEATURES, 1)
        self.merge16 = Separable(CONTEXT, 32)
        self.merge8 = Separable(32, FEATURES)
        self.merge4 = Separable(FEATURES, FEATURES)
        self.branch = Separable(FEATURES, BRANCH)
        self.logits = nn.Conv2d(BRANCH, joints, 1)

    def forward(self, image: Tensor) -> Parts:
        taps: list[Tensor] = []
        return self.finish(self.run(self.begin(image), taps, 0, len(self.blocks)), taps)

    def begin(self, image: Tensor) -> Tensor:
        """The input of the first of `blocks`, (N, 24, H/2, W/2)."""
        x = _relu6(self.stem(_below_and_right(image)))
        return self.project(_relu6(self.depthwise(x)))  # type: ignore[no-any-return]  # a module's call is untyped

    def run(self, x: Tensor, taps: list[Tensor], first: int, end: int) -> Tensor:
        """Blocks `first` to `end` - 1; the outputs that the pyramid reads are appended to `taps`."""
        for index in range(first, end):
            x = self.blocks[index](x)
            if index in TAPS:
                taps.append(x)
        return x

    def finish(self, x: Tensor, taps: list[Tensor]) -> Parts:
        """The pyramid and the heatmaps, from the last block's output."""
        detail, middle, f16 = taps
        context = upsample(self.lateral32(_relu6(self.top(x))), 2) + self.lateral16(f16)
        x = upsample(self.merge16(context), 2) + self.lateral8(middle)
        x = upsample(self.merge8(x), 2) + self.lateral4(detail)
        features = self.merge4(x)
        return Parts(self.logits(self.branch(features)), features, detail, middle, context)


class InvertedResidual(nn.Module):
    """1x1 to `hidden` channels, depthwise 3x3, 1x1 without an activation; added to its input where the shapes allow."""

    def __init__(self, c_in: int, hidden: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.adds = stride == 1 and c_in == c_out
        self.expand = nn.Conv2d(c_in, hidden, 1)
        self.depthwise = nn.Conv2d(hidden, hidden, 3, stride, padding=0 if stride == 2 else 1, groups=hidden)
        self.project = nn.Conv2d(hidden, c_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.project(self.hidden(x))
        return x + y if self.adds else y

    def hidden(self, x: Tensor) -> Tensor:
        """The input of the last convolution."""
        y = _relu6(self.expand(x))
        return _relu6(self.depthwise(_below_and_right(y) if self.stride == 2 else y))


class Separable(nn.Module):
    """Depthwise 3x3, 1x1, ReLU."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(c_in, c_in, 3, padding=1, groups=c_in, bias=False)
        self.pointwise = nn.Conv2d(c_in, c_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.pointwise(self.depthwise(x)))


def upsample(x: Tensor, factor: int) -> Tensor:
    return F.interpolate(x, scale_factor=float(factor), mode="bilinear", align_corners=False)


def _below_and_right(x: Tensor) -> Tensor:
    """Pad one row and one column of zeros, as in the training of the weights, before a convolution of stride two."""
    return F.pad(x, (0, 1, 0, 1))


def _relu6(x: Tensor) -> Tensor:
    """ReLU6 in place, since nothing else reads a convolution's output; saves a quarter of a frozen backbone's time."""
    return F.relu6(x, inplace=True)
