"""small, the bundled network that finds most: MoveNet MultiPose's backbone, slightly pruned, under HigherHRNet's head.

MoveNet's own pyramid is 24 channels wide at 1/4. A second, wider one corrects its heatmaps at 1/4 and gives the
features for those at 1/2. A tag is a person's centre, two numbers: the cell's position plus the offset from it to the
centre, which a hidden layer predicts from the features at 1/4 and 1/16, and the wider pyramid corrects. For inference
the averaged heatmaps are smoothed.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from export.head import BasicBlock, conv_bn
from export.movenet import CONTEXT, DETAIL, FEATURES, MIDDLE, NEARLY_WHOLE, NEARLY_WHOLE_TOP, MoveNet, Parts, upsample
from export.over_movenet import OverMoveNet, Smoothing
from export.zoo import MODELS

TAG_DIMS: Literal[2] = 2
TAG_CHANNELS = 96  # of the hidden layer
TAG_STRIDE = 4  # input pixels per cell
TAG_SCALE = (1 / 30, 1 / 42)  # tag units per input pixel, (x, y): people stand mostly side by side
COARSE, MEDIUM, FINE, FINEST = 96, 64, 48, 32  # channels of the wider pyramid at 1/16, 1/8, 1/4, and of the head at 1/2


class Small(OverMoveNet):
    """image (N, 3, H, W), sides multiples of 32 -> (N, 3K, H/4, W/4), heatmaps and tags; (N, K, H/2, W/2), heatmaps.

    The tags: all joints' first components (horizontal), then all second components (vertical).
    """

    def __init__(self, joints: int = 17) -> None:
        super().__init__(FINE, joints, residual_blocks=1, deconv_channels=FINEST)
        # Only heatmaps are concatenated: of a place in the picture, which the tags are, the head must know nothing.
        up = nn.ConvTranspose2d(FINE + joints, FINEST, 4, stride=2, padding=1, bias=False)
        self.deconv_layers[0][0][0] = up  # type: ignore[index]  # a Sequential of Sequentials
        self.backbone = MoveNet(joints, NEARLY_WHOLE, NEARLY_WHOLE_TOP)
        self.tags = TagFeatures()
        self.final_layers[0] = nn.Conv2d(TAG_CHANNELS, TAG_DIMS * joints, 1)  # tags alone
        self.pyramid = WidePyramid()
        self.corrections = nn.Conv2d(FINE, (1 + TAG_DIMS) * joints, 1)  # of the logits and of the tags
        self.tag_scale = nn.Parameter(torch.tensor(TAG_SCALE))
        self.smoothing = Smoothing.of_joints(joints, MODELS["small"].short_side)
        self._initialise((self.corrections, *self.final_layers))

    def _predictions(self, parts: Parts) -> tuple[Tensor, Tensor, Tensor]:
        wide = self.pyramid(parts)
        more_logits, more_tags = self.corrections(wide).split([self.joints, TAG_DIMS * self.joints], 1)
        heatmaps = torch.sigmoid(parts.logits + more_logits)
        way: Tensor = self.final_layers[0](self.tags(torch.cat([parts.features, parts.detail], 1), parts.context))
        more: Tensor = self.final_layers[1](self.deconv_layers[0](torch.cat([wide, heatmaps], 1)))
        return heatmaps, more, way + more_tags + self._place(way.shape[2], way.shape[3])

    def _place(self, rows: int, columns: int) -> Tensor:
        """(2K, rows, columns): each cell's centre in tag units; x for the first K channels, y for the others."""
        x, y = (
            scale * ((torch.arange(cells, device=scale.device).to(scale.dtype) + 0.5) * TAG_STRIDE)
            for scale, cells in zip(self.tag_scale.unbind(), (columns, rows), strict=True)
        )
        place = torch.stack([x.expand(rows, columns), y[:, None].expand(rows, columns)])
        return place[:, None].expand(TAG_DIMS, self.joints, rows, columns).flatten(0, 1)


class TagFeatures(nn.Module):
    """The hidden layer, (N, 96, H/4, W/4). The part from coarse features is computed at 1/16, then upsampled."""

    def __init__(self) -> None:
        super().__init__()
        self.context = nn.Conv2d(CONTEXT, TAG_CHANNELS, 1, bias=False)
        self.detail = nn.Conv2d(FEATURES + DETAIL, TAG_CHANNELS, 1)

    def forward(self, detail: Tensor, context: Tensor) -> Tensor:
        return F.relu(self.detail(detail) + upsample(self.context(context), 4))


class WidePyramid(nn.Module):
    """Features (N, 48, H/4, W/4) from all the backbone's; large kernels at 1/16 and 1/8 see whole people."""

    def __init__(self) -> None:
        super().__init__()
        self.coarse = nn.Sequential(conv_bn(CONTEXT, COARSE, 1), LargeKernelBlock(COARSE), LargeKernelBlock(COARSE))
        self.coarse_to_medium = nn.Conv2d(COARSE, MEDIUM, 1, bias=False)
        self.medium = conv_bn(MIDDLE, MEDIUM, 1, relu=False)
        self.medium_block = LargeKernelBlock(MEDIUM)
        self.medium_to_fine = nn.Conv2d(MEDIUM, FINE, 1, bias=False)
        self.fine = conv_bn(FEATURES + DETAIL, FINE, 1, relu=False)
        self.fine_blocks = nn.Sequential(BasicBlock(FINE), BasicBlock(FINE))

    def forward(self, parts: Parts) -> Tensor:
        above = upsample(self.coarse_to_medium(self.coarse(parts.context)), 2)
        above = self.medium_block(F.relu(self.medium(parts.middle) + above))
        above = upsample(self.medium_to_fine(above), 2)
        fine: Tensor = self.fine_blocks(F.relu(self.fine(torch.cat([parts.features, parts.detail], 1)) + above))
        return fine


class LargeKernelBlock(nn.Module):
    """A residual block: depthwise 5x5, 1x1, twice."""

    def __init__(self, width: int) -> None:
        super().__init__()
        depthwise = (nn.Conv2d(width, width, 5, padding=2, groups=width, bias=False) for _ in range(2))
        first, second = depthwise
        self.branch = nn.Sequential(first, *conv_bn(width, width, 1), second, *conv_bn(width, width, 1, relu=False))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.branch(x))
