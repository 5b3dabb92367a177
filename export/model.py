"""HigherHRNet in one file, named as in the paper (Cheng et al., CVPR 2020); every row of its ablation is a switch.

Module names are the authors', so that their checkpoints load key by key. Needs torch, and nothing else of the project.
"""

from __future__ import annotations

from functools import reduce
from operator import add
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WIDTHS = {"w32": 32, "w48": 48}
MODELS = (*WIDTHS, "tiny")

# The paper's ablation, each row on top of the one before; the last row is HigherHRNet.
ABLATION: dict[str, dict[str, Any]] = {
    "HRNet baseline": {"deconvolutions": 0},
    "+ multi-resolution supervision": {"concatenate": False, "aggregate": False, "residual_blocks": 0},
    "+ feature concatenation": {"aggregate": False, "residual_blocks": 0},
    "+ heatmap aggregation": {"residual_blocks": 0},
    "+ extra residual blocks": {},
}


def conv_bn(c_in: int, c_out: int, kernel: int, stride: int = 1, *, relu: bool = True) -> nn.Sequential:
    """Convolution without bias, batch-norm and, unless told otherwise, ReLU; size kept for stride 1."""
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
    """Parallel branches of four residual blocks, each half as fine as the one before; then all flow into each.

    widths: channels of each branch, finest first. outputs: how many branches go on, from the finest.
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


class HigherHRNet(HigherHead):
    """HRNet's backbone, its finest branch kept at 1/4, under HigherHead. width: channels of that branch, e.g. 32.

    image: (N, 3, H, W), sides multiples of 32. Keyword arguments as HigherHead.
    """

    MODULES = (1, 4, 3)  # high-resolution modules in stages 2, 3, 4

    def __init__(self, width: int = 32, joints: int = 17, **switches: Any) -> None:
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


class Aggregated(nn.Module):
    """What is exported: image -> `heatmaps` (N, K, H/2, W/2) and `tags` (N, K, H/4, W/4), by `model.aggregated`."""

    def __init__(self, model: HigherHead) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        return self.model.aggregated(image)


def build_model(name: str, joints: int = 17, **switches: Any) -> HigherHead:
    """The network "w32", "w48" or "tiny" with random weights; `model(image)` gives (quarter, half), see HigherHead.

    switches: keyword arguments of HigherHead; "tiny" takes none. Raises ValueError for an unknown name or value.
    """
    if name in WIDTHS:
        return HigherHRNet(WIDTHS[name], joints, **switches)
    if name != "tiny":
        raise ValueError(f"no model is called {name!r}; expected one of {', '.join(MODELS)}")
    if switches:
        raise ValueError(f"tiny has no switches, got {', '.join(switches)}; they belong to {', '.join(WIDTHS)}")
    from export.tiny import build_tiny

    model: HigherHead = build_tiny(joints=joints)
    return model
