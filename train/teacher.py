"""Teacher: a published network that supplies targets during training, so that its abilities are not forgotten.

For the pictures of some sets, the targets of the heatmaps at 1/4 are the teacher's, or a mean of the teacher's and the
labels', and the backbone's features are fitted to the teacher's (Li & Hoiem 2016, "Learning without Forgetting"). The
targets of tags and finer heatmaps are always the labels'.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor

from export.movenet import MoveNet, Parts
from train.arguments import FEATURES_WEIGHT


class Teacher:
    """network: the published one, in eval mode; sets: numbers of the Mixture's sets that use the teacher.

    label_share: weight of the labels' heatmaps in the targets, 0 to 1, at the start and at the end of the run; one
        number: throughout. Where no label is known, the targets are the teacher's.
    background_share: the labels' weight in cells that no labelled joint reaches, by default the same. There, labels
        say that no joint is, also of joints and people that nobody labelled.
    features_weight: of the loss of the features.
    """

    def __init__(
        self,
        network: MoveNet,
        sets: Collection[int],
        label_share: float | tuple[float, float] = 0.0,
        background_share: float | None = None,
        features_weight: float = FEATURES_WEIGHT,
    ) -> None:
        self.network = network.eval().requires_grad_(False)
        self.label_share = label_share if isinstance(label_share, tuple) else (label_share, label_share)
        self.background_share = background_share
        self.features_weight = features_weight
        self.sets = torch.tensor(sorted(sets), dtype=torch.int64)
        self.share = self.label_share[0]

    def to(self, device: str, layout: torch.memory_format = torch.channels_last) -> None:
        self.network.to(device=device, memory_format=layout)  # type: ignore[call-overload]  # stubs lack it

    def set_progress(self, done: float) -> None:
        """Tell how much of the run is done, 0 to 1: the labels' share depends on it."""
        start, end = self.label_share
        self.share = start + (end - start) * min(done, 1.0)

    def teach(self, images: Tensor, sets: Tensor, parts: Parts, heatmaps: Tensor, masks: Tensor) -> Tensor:
        """Mix its heatmaps into the targets of its sets' pictures, in place, and return the loss of the features.

        images: (N, 3, side, side), normalised. sets: (N,) int64 on the host, each picture's set. parts: the trained
        backbone's outputs for the images. heatmaps, masks: (N, K, side / 4, side / 4), the targets at 1/4 and their
        masks.
        """
        distilled = self._rows(sets, images.device)
        loss = torch.zeros((), device=images.device)
        if distilled is None:
            return loss
        with torch.no_grad():
            theirs = self.network(images[distilled])
            share = self.share * masks[distilled]
            if self.background_share is not None:
                share = torch.where(heatmaps[distilled] > 0, share, self.background_share * masks[distilled])
            heatmaps[distilled] = torch.lerp(torch.sigmoid(theirs.logits.float()), heatmaps[distilled], share)
            masks[distilled] = 1.0
        for ours, wanted in ((parts.features, theirs.features), (parts.context, theirs.context)):
            target = wanted.float()
            loss = loss + (ours[distilled].float() - target).square().mean() / target.var()
        return self.features_weight * loss

    def _rows(self, sets: Tensor, device: torch.device) -> slice | Tensor | None:
        """The rows of its sets' pictures: a slice if they are the first ones, which needs no copy; None without any."""
        rows = torch.isin(sets, self.sets).nonzero()[:, 0]
        if len(rows) == 0:
            return None
        return slice(0, len(rows)) if int(rows[-1]) == len(rows) - 1 else rows.to(device)
