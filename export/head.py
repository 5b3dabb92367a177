"""HigherHRNet's head (Cheng et al., CVPR 2020) over any backbone; every row of the paper's ablation is a switch.

Module names are the authors', so that their checkpoints load key by key. Needs torch, and nothing else of the project.
"""

from __future__ import annotations

from functools import reduce
from operator import add
from typing import TypedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def conv_bn(c_in: int, c_out: int, kernel: int, stride: int = 1, *, relu: bool = True) -> nn.Sequential:
    """Convolution without bias, batch-norm and, by default, ReLU; stride 1 keeps the size."""
    conv = nn.Conv2d(c_in, c_out, kernel, stride, padding=kernel // 2, bias=False)
    layers: list[nn.Module] = [conv, nn.BatchNorm2d(c_out)]
    if relu:
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and the identity around them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return F.relu(self.bn2(self.conv2(out)) + x, inplace=True)


class HeadSwitches(TypedDict, total=False):
    """The switches of HigherHead by name, for functions that forward them."""

    deconvolutions: int
    concatenate: bool
    residual_blocks: int
    aggregate: bool


class HigherHead(nn.Module):
    """The paper's head over any backbone: predictions at 1/4, then one deconvolution module per doubling of the size.

    A subclass gives `features(image)`: (N, 3, H, W) -> (N, channels, H/4, W/4).
    channels: width of the features; also of the deconvolutions unless `deconv_channels` is given.
    deconvolutions: modules (0, 1 or 2), one more output each. concatenate: predictions join the features on their way
    into the next module. residual_blocks: per module. aggregate: whether inference averages the heatmaps of all
    outputs, or takes those of the finest; no weight depends on it.

    Forward returns 1 + deconvolutions raw outputs: (N, 2K, H/4, W/4), heatmaps then tags, and (N, K, H/2, W/2),
    (N, K, H, W), heatmaps only.
    """

    def __init__(
        self,
        channels: int,
        joints: int = 17,
        *,
        deconvolutions: int = 1,
        concatenate: bool = True,
        residual_blocks: int = 4,
        aggregate: bool = True,
        deconv_channels: int | None = None,
    ) -> None:
        super().__init__()
        if joints < 1:
            raise ValueError(f"joints is {joints}; expected at least 1")
        if deconvolutions not in (0, 1, 2):
            raise ValueError(f"deconvolutions is {deconvolutions}; expected 0, 1 or 2")
        if residual_blocks < 0:
            raise ValueError(f"residual_blocks is {residual_blocks}; expected 0 or more")
        self.joints = joints
        self.concatenate = concatenate
        self.aggregate = aggregate
        inner = channels if deconv_channels is None else deconv_channels
        predictions = [2 * joints] + [joints] * deconvolutions  # only the coarsest output has tags
        widths = [channels] + [inner] * deconvolutions
        self.final_layers = nn.ModuleList(nn.Conv2d(w, p, 1) for w, p in zip(widths, predictions, strict=True))
        self.deconv_layers = nn.ModuleList()
        for width, prediction in zip(widths[:-1], predictions[:-1], strict=True):
            c_in = width + prediction if concatenate else width
            up = nn.ConvTranspose2d(c_in, inner, 4, stride=2, padding=1, bias=False)
            first = nn.Sequential(up, nn.BatchNorm2d(inner), nn.ReLU(inplace=True))
            # The authors wrap each residual block in a Sequential of one: `deconv_layers.0.1.0.conv1`.
            blocks = [nn.Sequential(BasicBlock(inner)) for _ in range(residual_blocks)]
            self.deconv_layers.append(nn.Sequential(first, *blocks))

    def features(self, image: Tensor) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} must give features(image): (N, C, H/4, W/4)")

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        x = self.features(image)
        outputs = [self.final_layers[0](x)]
        for up, final in zip(self.deconv_layers, list(self.final_layers)[1:], strict=True):
            x = up(torch.cat([x, outputs[-1]], 1) if self.concatenate else x)
            outputs.append(final(x))
        return tuple(outputs)

    def aggregated(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Heatmaps (N, K, H/2, W/2) and tags (N, K, H/4, W/4), float32: what inference uses.

        Heatmaps of all outputs, brought to H/2 (bilinear, pixel centres; (N, K, H, W) by 2x2 means), are averaged; with
        `aggregate` off, the finest are taken alone. Computed in float32 whatever the model's own type is.
        """
        outputs = [output.float() for output in self(image)]
        tags = outputs[0][:, self.joints :]
        maps = [output[:, : self.joints] for output in outputs]
        maps[0] = F.interpolate(maps[0], scale_factor=2.0, mode="bilinear", align_corners=False)
        if len(maps) == 3:
            maps[2] = F.avg_pool2d(maps[2], 2)
        if not self.aggregate:
            return maps[-1], tags
        return reduce(add, maps) / len(maps), tags


class Aggregated(nn.Module):
    """The exported module: image -> `heatmaps` (N, K, H/2, W/2) and `tags` (N, K, H/4, W/4), by `model.aggregated`."""

    def __init__(self, model: HigherHead) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        return self.model.aggregated(image)
