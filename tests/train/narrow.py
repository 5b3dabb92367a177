"""A narrow backbone with HigherHead, small enough to learn four pictures in seconds."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from export.head import HigherHead, conv_bn


class Narrow(HigherHead):
    """Features down to 1/16 and back to 1/4. As in tiny, the position in the picture is added to the tags."""

    def __init__(self, joints: int = 17, width: int = 24) -> None:
        super().__init__(width, joints, residual_blocks=0)
        self.fine = nn.Sequential(conv_bn(3, width // 2, 3, 2), conv_bn(width // 2, width, 3, 2))
        self.coarse = nn.Sequential(
            conv_bn(width, 2 * width, 3, 2), conv_bn(2 * width, 2 * width, 3, 2), conv_bn(2 * width, 2 * width, 7)
        )
        self.merge = conv_bn(3 * width, width, 3)

    def features(self, image: Tensor) -> Tensor:
        fine = self.fine(image)
        coarse = F.interpolate(self.coarse(fine), scale_factor=4.0, mode="bilinear")
        merged: Tensor = self.merge(torch.cat([fine, coarse], 1))
        return merged

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        quarter, half = super().forward(image)
        heatmaps, tags = quarter.chunk(2, dim=1)
        place = torch.arange(tags.shape[3]) / 6
        return torch.cat([heatmaps, tags + place], 1), half
