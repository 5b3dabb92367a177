"""small, the second bundled network: MoveNet MultiPose's backbone, slightly pruned, and tags of two numbers.

The heatmaps are the backbone's own, at 1/4 (the first row of the paper's ablation: finer ones have to be trained, and
would cost a fifth of the time). A tag is a person's centre: the cell's position plus the offset from it to the
centre, which a hidden layer predicts from the features at 1/4 and 1/16.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from export.head import HigherHead
from export.movenet import CONTEXT, DETAIL, FEATURES, NEARLY_WHOLE, NEARLY_WHOLE_TOP, MoveNet, upsample

TAG_DIMS: Literal[2] = 2
TAG_CHANNELS = 96  # of the hidden layer
TAG_STRIDE = 4  # input pixels per cell
TAG_SCALE = (1 / 30, 1 / 42)  # tag units per input pixel, (x, y): people stand mostly side by side


class Small(HigherHead):
    """image (N, 3, H, W), sides multiples of 32 -> one output, (N, 3K, H/4, W/4): heatmaps and tags.

    The tags: all joints' first components (horizontal), then all second components (vertical).
    """

    def __init__(self, joints: int = 17) -> None:
        super().__init__(TAG_CHANNELS, joints, deconvolutions=0)
        self.backbone = MoveNet(joints, NEARLY_WHOLE, NEARLY_WHOLE_TOP)
        self.tags = TagFeatures()
        self.final_layers[0] = nn.Conv2d(TAG_CHANNELS, TAG_DIMS * joints, 1)  # tags alone
        self.tag_scale = nn.Parameter(torch.tensor(TAG_SCALE))
        # Heatmaps leave as gain * (value - floor), tags times a factor, as tiny's: (1, 0, 1) while training.
        self.register_buffer("contrast", torch.tensor([1.0, 0.0, 1.0]))
        self.contrast: Tensor
        self._initialise()

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return self.head(*self.backbone(image))

    def head(self, logits: Tensor, features: Tensor, detail: Tensor, context: Tensor) -> tuple[Tensor, ...]:
        """The output, from what the backbone gives."""
        gain, floor, factor = self.contrast.unbind()
        way: Tensor = self.final_layers[0](self.tags(torch.cat([features, detail], 1), context))
        heatmaps = gain * (torch.sigmoid(logits) - floor)
        return (torch.cat([heatmaps, factor * (way + self._place(way.shape[2], way.shape[3]))], 1),)

    def _place(self, rows: int, columns: int) -> Tensor:
        """(2K, rows, columns): each cell's centre in tag units; x for the first K channels, y for the others."""
        x, y = (
            scale * ((torch.arange(cells, device=scale.device).to(scale.dtype) + 0.5) * TAG_STRIDE)
            for scale, cells in zip(self.tag_scale.unbind(), (columns, rows), strict=True)
        )
        place = torch.stack([x.expand(rows, columns), y[:, None].expand(rows, columns)])
        return place[:, None].expand(TAG_DIMS, self.joints, rows, columns).flatten(0, 1)

    def _initialise(self) -> None:
        """He (2015) for convolutions; heatmaps start low, tags start as the position alone."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for parameter in self.final_layers.parameters():
            nn.init.zeros_(parameter)
        nn.init.normal_(self.backbone.logits.weight, std=1e-3)
        nn.init.constant_(self.backbone.logits.bias, -4.0)  # type: ignore[arg-type]  # a bias is there: Conv2d(bias=True)


class TagFeatures(nn.Module):
    """The hidden layer, (N, 96, H/4, W/4). The part from coarse features is computed at 1/16, then upsampled."""

    def __init__(self) -> None:
        super().__init__()
        self.context = nn.Conv2d(CONTEXT, TAG_CHANNELS, 1, bias=False)
        self.detail = nn.Conv2d(FEATURES + DETAIL, TAG_CHANNELS, 1)

    def forward(self, detail: Tensor, context: Tensor) -> Tensor:
        return F.relu(self.detail(detail) + upsample(self.context(context), 4))
