"""The bundled model: a pose-trained MobileNetV2 with a feature pyramid, and HigherHRNet's head, for two laptop cores.

The backbone gives heatmaps at 1/4 (MoveNet MultiPose's, in `export/movenet.py`) and features at 1/16 that
encode roughly where a person's centre is. The head learns a correction of the heatmaps at 1/2, and the tags. Tags start
as the person's centre, projected to one number: the cell's position plus a linear function of the features. They must
differ at the start, since the push loss has no gradient between equal tags.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from export.head import conv_bn
from export.movenet import CONTEXT, DETAIL, FEATURES, MoveNet, Parts, upsample
from export.over_movenet import OverMoveNet, Smoothing
from export.zoo import MODELS

STRIDE = 16  # input pixels per cell of the features that give the tags
TAG_CHANNELS = 96
TAG_SCALE = (1 / 24, 1 / 48)  # tag units per input pixel, (x, y): people stand mostly side by side

TINY_MEAN = (0.5,) * 3  # the backbone's pixel / 127.5 - 1, in the ModelSpec's terms
TINY_STD = (0.5,) * 3


def build_tiny(joints: int = 17, width: int = 24) -> Tiny:
    """The bundled network, randomly initialised. `width`: channels of the head."""
    return Tiny(joints, width)


class Tiny(OverMoveNet):
    """image (N, 3, H, W), sides multiples of 32 -> (quarter, half), as HigherHead."""

    def __init__(self, joints: int, width: int) -> None:
        super().__init__(width, joints, residual_blocks=0)
        self.final_layers[0] = nn.Conv2d(width, joints, 1)  # tags alone: at 1/4 the heatmaps are the backbone's
        self.deconv_layers[0] = nn.Sequential(*self.deconv_layers[0].children(), SeparableBlock(width))
        self.backbone = MoveNet(joints)
        self.merge = nn.Sequential(separable(FEATURES + DETAIL, width), SeparableBlock(width))
        self.tags = nn.Conv2d(CONTEXT, joints, 1)  # the read-out, at 1/16
        self.tag_context = nn.Sequential(separable(CONTEXT, TAG_CHANNELS), SeparableBlock(TAG_CHANNELS))
        self.more_tags = nn.Conv2d(TAG_CHANNELS, joints, 1)  # a correction of the read-out
        self.tag_scale = nn.Parameter(torch.tensor(TAG_SCALE) * STRIDE)  # tag units per cell at 1/16, (x, y)
        self.smoothing = Smoothing.of_joints(joints, MODELS["tiny"].short_side)
        self._initialise((self.more_tags, *self.final_layers))
        nn.init.normal_(self.tags.weight, std=1e-3)

    def _predictions(self, parts: Parts) -> tuple[Tensor, Tensor, Tensor]:
        logits, features, detail, _, context = parts
        tags = upsample(self.tags(context) + self.more_tags(self.tag_context(context)), 4)
        features = self.merge(torch.cat([features, detail], 1))
        heatmaps, tags = torch.sigmoid(logits), tags + self.final_layers[0](features)
        more = self.final_layers[1](self.deconv_layers[0](torch.cat([features, heatmaps, tags], 1)))
        # The position joins the tags last: what the head learns must not depend on where in the picture a person is.
        return heatmaps, more, tags + self._place(context.shape[2], context.shape[3])

    def _place(self, rows: int, columns: int) -> Tensor:
        """(4 rows, 4 columns): each cell's position at 1/4, in tag units; rows and columns are those at 1/16."""
        x, y = (self._ramp(cells) for cells in (columns, rows))
        return self.tag_scale[0] * x + self.tag_scale[1] * y[:, None]

    def _ramp(self, cells: int) -> Tensor:
        """Along one side, each cell of 1/4's position in cells of 1/16 (`cells` of them).

        Interpolation repeats the outermost cells: near the border a value belongs to a place further in.
        """
        true = (torch.arange(4 * cells, device=self.tag_scale.device).to(self.tag_scale.dtype) + 0.5) / 4 - 0.5
        return true.clamp(min=0) - (true - (cells - 1)).clamp(min=0)


class SeparableBlock(nn.Module):
    """A residual block of two separable convolutions: one of HigherHRNet's extra blocks at a tenth of the work."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            *separable(width, width),
            nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False),
            *conv_bn(width, width, 1, relu=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.branch(x))


def separable(c_in: int, c_out: int) -> nn.Sequential:
    """Depthwise 3x3, then 1x1, batch-norm and ReLU."""
    return nn.Sequential(nn.Conv2d(c_in, c_in, 3, padding=1, groups=c_in, bias=False), *conv_bn(c_in, c_out, 1))
