"""The losses of HigherHRNet: masked squared error of heatmaps per resolution, and associative embedding of tags."""

from __future__ import annotations

import torch
from torch import Tensor


def heatmap_loss(maps: Tensor, targets: Tensor, masks: Tensor, foreground: float = 0.0) -> Tensor:
    """Mean over all cells of the masked squared error, weighted by 1 + foreground * target.

    maps, targets: (N, K, h, w). masks: (N, 1, h, w) or (N, K, h, w), 0 where there is no label.
    Source: Cheng et al. 2020, sec. 3.3, but for the weight: about one cell in a hundred belongs to a joint, and without
    it, a network that is trained for a short time predicts no wrists and ankles at all.
    """
    weights = masks * (1 + foreground * targets)
    return (weights * (maps - targets).square()).mean()


def focal_loss(maps: Tensor, targets: Tensor, masks: Tensor, foreground: float = 0.0) -> Tensor:
    """As heatmap_loss, for maps that are probabilities: cross-entropy, weighted by the squared error.

    A missed joint (a value near 0) has a gradient, unlike with the squared error of a sigmoid, and the many cells that
    are correct have almost no weight. Source: Li et al. 2020, "Generalized Focal Loss", eq. 2.
    """
    weights = masks * (1 + foreground * targets)
    entropy = torch.nn.functional.binary_cross_entropy(maps.clamp(1e-5, 1 - 1e-5), targets, reduction="none")
    return (weights * (maps - targets).square() * entropy).mean()


def tag_losses(tags: Tensor, cells: Tensor, margin: float = 1.0) -> tuple[Tensor, Tensor]:
    """(pull, push): the tags of a person should be equal, those of different people should differ. Means over the
    batch's pictures.

    tags: (N, D * K, h, w), D values per tag. cells: (N, P, K) int64, index into h * w of each person's joints, or -1.
    With m_p the mean tag of person p: pull is the mean over people of mean_k |tag - m_p|^2; push is the mean over
    pairs of different people of exp(-|m_p - m_q|^2 / (2 margin^2)). Both are 0 for a picture without people, and push
    for one with a single person.
    Source: Newell et al. 2017, eq. 1 (tags differ per joint channel, as in the authors' code).
    """
    found = cells >= 0  # (N, P, K)
    numbers = tags.shape[1] // cells.shape[2]
    at = cells.clamp(min=0).transpose(1, 2).repeat(1, numbers, 1)  # (N, D K, P)
    picked = tags.flatten(2).gather(2, at).reshape(len(at), numbers, *cells.shape[:0:-1])  # (N, D, K, P)
    picked = picked.permute(0, 3, 2, 1)  # (N, P, K, D)
    counts = found.sum(2).clamp(min=1)
    means = (picked * found[..., None]).sum(2) / counts[..., None]  # (N, P, D)
    spread = ((picked - means[:, :, None]).square().sum(3) * found).sum(2) / counts  # (N, P)
    present = found.any(2)  # (N, P)
    people = present.sum(1)
    pull = (spread * present).sum(1) / people.clamp(min=1)

    pairs = present[:, :, None] & present[:, None, :]
    pairs = pairs & ~torch.eye(present.shape[1], dtype=torch.bool, device=tags.device)
    difference = means[:, :, None] - means[:, None, :]
    closeness = torch.exp(-difference.square().sum(3) / (2 * margin**2))
    push = (closeness * pairs).sum((1, 2)) / (people * (people - 1)).clamp(min=1)
    return pull.mean(), push.mean()
