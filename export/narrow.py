"""narrow: HigherHRNet's head, few channels wide, over small's backbone, to compare the head's switches cheaply.

The head is trained in minutes on a CPU while the backbone is frozen (benchmarks/ablation.py); no weights are published.
"""

from __future__ import annotations

from typing import Unpack

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from export.head import HeadSwitches, HigherHead, conv_bn
from export.movenet import CONTEXT, DETAIL, FEATURES, MIDDLE, NEARLY_WHOLE, NEARLY_WHOLE_TOP, MoveNet, upsample

MERGED, FINE = 64, 24  # channels of the features at 1/4, and of the head at 1/2
TAG_PER_CELL = (4 / 30, 4 / 42)  # tag units per cell at 1/4, (x, y): people stand mostly side by side


class NarrowHigher(HigherHead):
    """image (N, 3, H, W), sides multiples of 32 -> the outputs of HigherHead. switches: as HigherHead's.

    The heatmaps of the backbone are not used. A tag is the cell's place plus what the head learns: people differ from
    the start, where between equal tags the push loss would have no gradient.
    """

    def __init__(self, joints: int = 17, **switches: Unpack[HeadSwitches]) -> None:
        super().__init__(MERGED, joints, deconv_channels=FINE, **switches)
        self.backbone = MoveNet(joints, NEARLY_WHOLE, NEARLY_WHOLE_TOP)
        self.fine = conv_bn(FEATURES + DETAIL, MERGED, 1, relu=False)
        self.middle = conv_bn(MIDDLE, MERGED, 1, relu=False)
        self.coarse = conv_bn(CONTEXT, MERGED, 1, relu=False)
        for layer in self.final_layers:  # heatmaps start at 0, as most of their targets are, tags as the place
            nn.init.zeros_(layer.get_parameter("weight"))
            nn.init.zeros_(layer.get_parameter("bias"))

    def features(self, image: Tensor) -> Tensor:
        _, features, detail, middle, context = self.backbone(image)
        fine: Tensor = self.fine(torch.cat([features, detail], 1))
        return F.relu(fine + upsample(self.middle(middle), 2) + upsample(self.coarse(context), 4))

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        first, *others = super().forward(image)
        heatmaps, tags = first[:, : self.joints], first[:, self.joints :]
        rows, columns = (torch.arange(cells, device=tags.device) + 0.5 for cells in tags.shape[2:])
        place = TAG_PER_CELL[0] * columns + TAG_PER_CELL[1] * rows[:, None]
        return torch.cat([heatmaps, tags + place], 1), *others
