"""What tiny and small share: HigherHRNet's head over MoveNet's backbone, and the calibration of the outputs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.joints import sigmas_for
from export.head import HigherHead
from export.movenet import MoveNet, Parts, upsample

# Sigma of a joint's smoothing, in cells at 1/2, for an input whose short side is SIDE: the first, and the second times
# the joint's OKS sigma.
SMOOTHING, SIDE = (1.0, 18.0), 448
REACH = 2  # sigmas, of the widest smoothing


class OverMoveNet(HigherHead):
    """image (N, 3, H, W), sides multiples of 32 -> (quarter, half), as HigherHead.

    A subclass sets `backbone` and gives `_predictions`. Heatmaps leave as gain * (value - floor), tags times a factor:
    `contrast`, (1, 0, 1) while training. Then a floor hides the faint ghosts wherever a joint might be, which the
    decode's threshold would take for people, and the factor says how far apart two people's tags must be: the decode's
    own distance is fixed, at 1.
    smoothing: what `aggregated` blurs the averaged heatmaps by: on a wide peak's flat top, a little noise moves the
    highest cell. Training sees the heatmaps as predicted.
    """

    smoothing: Smoothing
    backbone: MoveNet
    contrast: Tensor

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return self.head(self.backbone(image))

    def head(self, parts: Parts) -> tuple[Tensor, ...]:
        """The outputs, from what the backbone gives."""
        heatmaps, more, tags = self._predictions(parts)
        gain, floor, factor = self.contrast.unbind()
        half = more + upsample(heatmaps, 2)
        return torch.cat([gain * (heatmaps - floor), factor * tags], 1), gain * (half - floor)

    def aggregated(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """As HigherHead's, smoothed, in fewer steps: the mean of an enlarged map and the same plus x is that map plus
        x / 2.
        """
        heatmaps, more, tags = self._predictions(self.backbone(image))
        gain, floor, factor = self.contrast.unbind()
        averaged = self.smoothing(upsample(heatmaps.float(), 2) + 0.5 * more.float())
        return gain.float() * (averaged - floor.float()), (factor * tags).float()

    def _predictions(self, parts: Parts) -> tuple[Tensor, Tensor, Tensor]:
        """(heatmaps (N, K, H/4, W/4), what the head adds to them at H/2, tags (N, D * K, H/4, W/4)), no contrast."""
        raise NotImplementedError(f"{type(self).__name__} must give _predictions(parts)")

    def _initialise(self, zeros: Iterable[nn.Module]) -> None:
        """The last step of a subclass's __init__. He (2015) for convolutions; the weights of the layers `zeros` at
        zero; the backbone's heatmaps start low."""
        self.register_buffer("contrast", torch.tensor([1.0, 0.0, 1.0]))
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.kaiming_normal_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for layer in zeros:
            nn.init.zeros_(layer.get_parameter("weight"))
        nn.init.normal_(self.backbone.logits.weight, std=1e-3)
        nn.init.constant_(self.backbone.logits.get_parameter("bias"), -4.0)


class Smoothing(nn.Module):
    """Blurs maps (N, channels, h, w) by Gaussians, across and then down; 0 beyond the border.

    sigmas: cells, of each channel.
    """

    kernel: Tensor

    def __init__(self, sigmas: Sequence[float]) -> None:
        super().__init__()
        self.channels, self.reach = len(sigmas), round(REACH * max(sigmas))
        cells = torch.arange(-self.reach, self.reach + 1.0)
        kernel = torch.softmax(-cells.square() / (2 * torch.tensor(sigmas)[:, None] ** 2), 1)
        self.register_buffer("kernel", kernel[:, None, None], persistent=False)

    @classmethod
    def of_joints(cls, joints: int, side: int) -> Smoothing:
        """The wider, the less exactly a joint can be placed: a hip's peak is flat where an eye's is sharp.

        side: the usual short side of the input, by which a person's size in cells changes.
        """
        least, more = SMOOTHING
        return cls([(least + more * sigma) * side / SIDE for sigma in sigmas_for(joints)])

    def forward(self, maps: Tensor) -> Tensor:
        kernel = self.kernel.to(maps.dtype)
        across = F.conv2d(maps, kernel, padding=(0, self.reach), groups=self.channels)
        return F.conv2d(across, kernel.transpose(2, 3), padding=(self.reach, 0), groups=self.channels)
