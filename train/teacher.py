"""Teacher: a published network that supplies targets during training, so that its abilities are not forgotten.

For the pictures of some sets, the targets of the heatmaps at 1/4 are the teacher's, or a mean of the teacher's and the
labels', and the backbone's features are fitted to the teacher's (Li & Hoiem 2016, "Learning without Forgetting"). The
targets of tags and finer heatmaps are always the labels'.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from export.movenet import MoveNet

FEATURES_WEIGHT = 0.1  # of the features' squared error, relative to their variance


class Teacher:
    """network: the published one, in eval mode; sets: numbers of the Mixture's sets that use the teacher.

    label_share: weight of the labels' heatmaps in the targets, 0 to 1. Where
        no label is known, the targets are the teacher's.
    """

    def __init__(self, network: MoveNet, sets: Collection[int], label_share: float = 0.0) -> None:
        self.network = network.eval().requires_grad_(False)
        self.label_share = label_share
        self.sets = torch.tensor(sorted(sets), dtype=torch.int64)

    def to(self, device: str) -> None:
        self.network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # stubs lack it

    def teach(self, images: Tensor, sets: Tensor, parts: Sequence[Tensor], heatmaps: Tensor, masks: Tensor) -> Tensor:
        """Mix its heatmaps into the targets of its sets' pictures, in place, and return the loss of the features.

        images: (N, 3, side, side), normalised. sets: (N,) int64, each picture's set. parts: the trained backbone's
        outputs for the images. heatmaps, masks: (N, K, side / 4, side / 4), the targets at 1/4 and their masks.
        """
        distilled = torch.isin(sets, self.sets).to(images.device)
        if not distilled.any():
            return torch.zeros((), device=images.device)
        with torch.no_grad():
            theirs = self.network(images[distilled])
            share = self.label_share * masks[distilled]
            heatmaps[distilled] = torch.lerp(torch.sigmoid(theirs[0].float()), heatmaps[distilled], share)
            masks[distilled] = 1.0
        loss = torch.zeros((), device=images.device)
        for part in (1, 3):  # features, context
            target = theirs[part].float()
            loss = loss + (parts[part][distilled].float() - target).square().mean() / target.var()
        return FEATURES_WEIGHT * loss
