"""A published network that goes on teaching while labels teach beside it, so that what it knows is not forgotten.

On the pictures of some sets the heatmaps at 1/4 learn from the teacher's, not from labels, and the backbone's features
from its features (Li & Hoiem 2016, "Learning without Forgetting"). Tags and the finer heatmaps have labels everywhere.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from export.movenet import MoveNet

FEATURES_WEIGHT = 0.1  # of the features' squared error, in their variance


class Teacher:
    """network: the published one, in eval mode; sets: numbers, in the Mixture, of the sets whose pictures it labels."""

    def __init__(self, network: MoveNet, sets: Collection[int]) -> None:
        self.network = network.eval().requires_grad_(False)
        self.sets = torch.tensor(sorted(sets), dtype=torch.int64)

    def to(self, device: str) -> None:
        self.network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # stubs lack it

    def teach(self, images: Tensor, sets: Tensor, parts: Sequence[Tensor], heatmaps: Tensor, masks: Tensor) -> Tensor:
        """Puts its heatmaps among the targets, in place, and returns the loss of the features.

        images: (N, 3, side, side), normalised. sets: (N,) int64, each picture's set. parts: what the learning backbone
        gives for the images. heatmaps, masks: (N, K, side / 4, side / 4), the targets at 1/4 and where they count.
        """
        taught = torch.isin(sets, self.sets).to(images.device)
        if not taught.any():
            return torch.zeros((), device=images.device)
        with torch.no_grad():
            theirs = self.network(images[taught])
            heatmaps[taught] = torch.sigmoid(theirs[0].float())
            masks[taught] = 1.0
        loss = torch.zeros((), device=images.device)
        for which in (1, 3):  # features, context
            wanted = theirs[which].float()
            loss = loss + (parts[which][taught].float() - wanted).square().mean() / wanted.var()
        return FEATURES_WEIGHT * loss
