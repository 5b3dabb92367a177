"""The bundled model: MobileNetV1 x0.75, a small feature pyramid and HigherHRNet's head. Made for two laptop cores.

The head starts from what a pose-trained backbone already knows (PoseNet, Papandreou et al. 2018): at 1/16 resolution
each joint has a logit ("near this cell") and an offset (from here to it, in pixels). Interpolated to 1/4 they give a
heatmap of their own, and the layers above learn what to add to it. Tags start as the person's centre, projected to one
number: where a cell lies, plus a linear read-out of the features. From equal tags the push loss has no gradient.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from export.model import HigherHead, conv_bn

# Pointwise outputs of the 13 separable blocks of MobileNetV1 (Howard et al. 2017), times 0.75, without the last stride.
BLOCKS = (48, 96, 96, 192, 192, 384, 384, 384, 384, 384, 384, 384, 384)
STRIDED = (2, 4, 6)  # blocks, counted from 1, whose depthwise layer halves the resolution
TAPS = (3, 5, 13)  # blocks whose output the pyramid reads: 1/4 (96 channels), 1/8 (192), 1/16 (384)
STRIDE = 16
PRIOR_SIGMA = 8.0  # input pixels: two cells at 1/4, the sigma of the targets there
OFFSET_UNIT = (
    PRIOR_SIGMA * 2**0.5
)  # input pixels; offsets are kept in it: exp(-|o|^2) is the Gaussian, and FP16 is safe
TAG_SCALE = (1 / 24, 1 / 48)  # tag units an input pixel, (x, y): people stand beside each other more than in a row

TINY_MEAN = (128 / 255,) * 3  # the backbone's pixel / 128 - 1, in the ModelSpec's terms
TINY_STD = (128 / 255,) * 3
TINY_SHORT_SIDE = 320


def build_tiny(joints: int = 17, width: int = 32) -> Tiny:
    """The bundled network, randomly initialised. `width`: channels of the pyramid and of the head."""
    return Tiny(joints, width)


class Tiny(HigherHead):
    """image (N, 3, H, W), sides multiples of 16 -> (quarter, half), as HigherHead."""

    def __init__(self, joints: int, width: int) -> None:
        super().__init__(width, joints, residual_blocks=0)
        self.deconv_layers[0] = nn.Sequential(*self.deconv_layers[0].children(), SeparableBlock(width))
        c4, c8, c16 = (BLOCKS[tap - 1] for tap in TAPS)
        self.backbone = MobileNet()
        self.coarse = nn.Conv2d(c16, 4 * joints, 1)  # logits, offsets y, offsets x, tags; read at 1/16
        self.lateral16 = conv_bn(c16, 3 * width, 1)
        self.lateral8 = conv_bn(c8, 3 * width, 1)
        self.lateral4 = conv_bn(c4, 2 * width, 1)
        self.merge8 = separable(3 * width, 2 * width)
        self.merge4 = nn.Sequential(separable(2 * width + joints, 2 * width), separable(2 * width, width))
        self.tag_scale = nn.Parameter(torch.tensor(TAG_SCALE) * STRIDE)  # tag units a cell of 1/16, (x, y)
        # Heatmaps leave as gain * (value - floor), (1, 0) while training. Then a floor hides the faint ghosts that
        # squared error leaves wherever a joint might be, and that the decode's threshold would take for people.
        self.register_buffer("contrast", torch.tensor([1.0, 0.0]))
        self.contrast: Tensor
        self._initialise()

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        f4, f8, f16 = self.backbone(image)
        dx, x = self._ramp(f16.shape[3])
        dy, y = self._ramp(f16.shape[2])
        logits, offset_y, offset_x, tags = _upsample(self.coarse(f16), 4).chunk(4, dim=1)
        unit = STRIDE / OFFSET_UNIT
        distance = (offset_y + unit * dy[:, None]).square() + (offset_x + unit * dx).square()
        prior = torch.sigmoid(logits) * torch.exp(-distance)  # (N, K, H/4, W/4)

        features = _upsample(self.lateral16(f16), 2) + self.lateral8(f8)
        features = _upsample(self.merge8(features), 2) + self.lateral4(f4)
        features = self.merge4(torch.cat([features, prior], 1))
        maps = self.final_layers[0](features) + torch.cat([prior, tags], 1)
        # The position joins the tags last: what the head learns must not depend on where in the picture a person is.
        half = self.final_layers[1](self.deconv_layers[0](torch.cat([features, maps], 1)))
        heatmaps, tags = maps.chunk(2, dim=1)
        place = self.tag_scale[0] * x + self.tag_scale[1] * y[:, None]  # (H/4, W/4)
        half = half + _upsample(heatmaps, 2)
        gain, floor = self.contrast[0], self.contrast[1]
        return torch.cat([gain * (heatmaps - floor), tags + place], 1), gain * (half - floor)

    def _ramp(self, cells: int) -> tuple[Tensor, Tensor]:
        """Along one side, for each cell of 1/4: (clamped - true, clamped) position, in cells of 1/16 (`cells` of them).

        Interpolation repeats the outermost cells: near the border a value belongs to a place further in.
        """
        true = (torch.arange(4 * cells, device=self.tag_scale.device).to(self.tag_scale.dtype) + 0.5) / 4 - 0.5
        clamped = true.clamp(min=0)
        clamped = clamped - (true - (cells - 1)).clamp(min=0)
        return clamped - true, clamped

    def _initialise(self) -> None:
        """He (2015) for convolutions; what the head adds to the prior starts at zero; the prior starts low."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.kaiming_normal_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for layer in (self.coarse, *self.final_layers):
            nn.init.normal_(layer.weight, std=1e-3)
        with torch.no_grad():
            self.coarse.bias[: self.joints] = -4.0  # type: ignore[index]  # a bias is there: Conv2d(bias=True)


class MobileNet(nn.Module):
    """Features at 1/4, 1/8 and 1/16. Batch-norm is already folded into the biases, as in the weights it starts from."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 24, 3, stride=2, padding=1)
        self.depthwise = nn.ModuleList()
        self.pointwise = nn.ModuleList()
        channels = 24
        for index, out in enumerate(BLOCKS, start=1):
            stride = 2 if index in STRIDED else 1
            # The last strided layer pads below and to the right only (forward): then a cell of 1/16 is centred on the
            # 16x16 pixels that it stands for (8 of 7.5), and interpolation needs no shift. With 1 on each side it is 0.
            padding = 0 if index == STRIDED[-1] else 1
            self.depthwise.append(nn.Conv2d(channels, channels, 3, stride, padding, groups=channels))
            self.pointwise.append(nn.Conv2d(channels, out, 1))
            channels = out

    def forward(self, image: Tensor) -> list[Tensor]:
        x = F.relu6(self.stem(image))
        taps = []
        for index, (depthwise, pointwise) in enumerate(zip(self.depthwise, self.pointwise, strict=True), start=1):
            if index == STRIDED[-1]:
                x = F.pad(x, (0, 1, 0, 1))
            x = F.relu6(pointwise(F.relu6(depthwise(x))))
            if index in TAPS:
                taps.append(x)
        return taps


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


def _upsample(x: Tensor, factor: int) -> Tensor:
    return F.interpolate(x, scale_factor=float(factor), mode="bilinear", align_corners=False)
