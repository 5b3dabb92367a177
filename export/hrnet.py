"""HigherHRNet: HRNet's backbone, named as in the paper (Cheng et al., CVPR 2020), under HigherHead.

Module names are the authors', so that their checkpoints load key by key.
"""

from __future__ import annotations

from functools import reduce
from operator import add
from typing import Unpack

from torch import Tensor, nn
from torch.nn import functional as F

from export.head import BasicBlock, HeadSwitches, HigherHead, conv_bn


class Bottleneck(nn.Module):
    """1x1 down, 3x3, 1x1 up to four times `channels`, and a shortcut around them, projected where the widths differ."""

    EXPANSION = 4

    def __init__(self, c_in: int, channels: int) -> None:
        super().__init__()
        c_out = self.EXPANSION * channels
        self.conv1 = nn.Conv2d(c_in, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, c_out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(c_out)
        self.downsample = nn.Identity() if c_in == c_out else conv_bn(c_in, c_out, 1, relu=False)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = F.relu(self.bn2(self.conv2(out)), inplace=True)
        return F.relu(self.bn3(self.conv3(out)) + self.downsample(x), inplace=True)


class HighResolutionModule(nn.Module):
    """Parallel branches of four residual blocks, each at half the previous size; then each output sums all branches.

    widths: channels of each branch, finest first. outputs: number of branches returned, from the finest.
    """

    def __init__(self, widths: list[int], outputs: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(nn.Sequential(*(BasicBlock(width) for _ in range(4))) for width in widths)
        self.fuse_layers = nn.ModuleList(
            nn.ModuleList(self._resample(widths, source, target) for source in range(len(widths)))
            for target in range(outputs)
        )

    @staticmethod
    def _resample(widths: list[int], source: int, target: int) -> nn.Module:
        """From branch `source` to the size and width of branch `target`."""
        steps = target - source
        if steps == 0:
            return nn.Identity()
        if steps < 0:
            up = nn.Upsample(scale_factor=float(2**-steps), mode="nearest")
            return nn.Sequential(*conv_bn(widths[source], widths[target], 1, relu=False), up)
        down = [conv_bn(widths[source], widths[source], 3, 2) for _ in range(steps - 1)]
        return nn.Sequential(*down, conv_bn(widths[source], widths[target], 3, 2, relu=False))

    def forward(self, xs: list[Tensor]) -> list[Tensor]:
        xs = [branch(x) for branch, x in zip(self.branches, xs, strict=True)]
        return [
            F.relu(reduce(add, [layer(x) for layer, x in zip(fuse.children(), xs, strict=True)]))
            for fuse in self.fuse_layers
        ]


class HigherHRNet(HigherHead):
    """HRNet's backbone, its finest branch kept at 1/4, under HigherHead. width: channels of that branch, e.g. 32.

    image: (N, 3, H, W), sides multiples of 32. switches: as HigherHead's.
    """

    MODULES = (1, 4, 3)  # high-resolution modules in stages 2, 3, 4

    def __init__(self, width: int = 32, joints: int = 17, **switches: Unpack[HeadSwitches]) -> None:
        super().__init__(width, joints, **switches)
        stem = 64
        self.conv1 = nn.Conv2d(3, stem, 3, 2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        self.conv2 = nn.Conv2d(stem, stem, 3, 2, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(stem)
        c_layer1 = stem * Bottleneck.EXPANSION
        self.layer1 = nn.Sequential(
            Bottleneck(stem, stem), Bottleneck(c_layer1, stem), Bottleneck(c_layer1, stem), Bottleneck(c_layer1, stem)
        )
        widths = [width * 2**branch for branch in range(4)]
        self.transition1 = nn.ModuleList(
            [conv_bn(c_layer1, widths[0], 3), nn.Sequential(conv_bn(c_layer1, widths[1], 3, 2))]
        )
        self.stage2 = self._stage(self.MODULES[0], widths[:2])
        self.transition2 = self._transition(widths[:3])
        self.stage3 = self._stage(self.MODULES[1], widths[:3])
        self.transition3 = self._transition(widths)
        self.stage4 = self._stage(self.MODULES[2], widths, outputs=1)

    @staticmethod
    def _transition(widths: list[int]) -> nn.ModuleList:
        """One more branch, at half the size of the last; the others go on as they are."""
        new = nn.Sequential(conv_bn(widths[-2], widths[-1], 3, 2))
        return nn.ModuleList([*(nn.Identity() for _ in widths[:-1]), new])

    @staticmethod
    def _stage(modules: int, widths: list[int], outputs: int | None = None) -> nn.Sequential:
        fused = [len(widths)] * (modules - 1) + [outputs or len(widths)]
        return nn.Sequential(*(HighResolutionModule(widths, count) for count in fused))

    def features(self, image: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(image)), inplace=True)
        x = F.relu(self.bn2(self.conv2(x)), inplace=True)
        x = self.layer1(x)
        xs: list[Tensor] = self.stage2([into(x) for into in self.transition1])
        xs = self.stage3([into(x) for into, x in zip(self.transition2, [*xs, xs[-1]], strict=True)])
        xs = self.stage4([into(x) for into, x in zip(self.transition3, [*xs, xs[-1]], strict=True)])
        return xs[0]
