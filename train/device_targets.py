"""As targets.py, for a whole batch on a device: heatmaps, and the cells of each person's tags."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from core.joints import sigmas_for
from train.targets import AREA_OF_BOX, LOWEST, OKS_SHARE, REACH, SIGMA, Limits


def peak_heights(sizes: Tensor, full_size: float) -> Tensor:
    """As targets.peak_heights, of any shape."""
    return (sizes / full_size).sqrt().clamp(LOWEST, 1.0) if full_size else torch.ones_like(sizes)


def joint_sigmas(sizes: Tensor, joints: int, stride: int, limits: Limits) -> Tensor:
    """(…, joints), as targets.joint_sigmas, of sizes of any shape."""
    reach = torch.tensor(sigmas_for(joints), device=sizes.device, dtype=sizes.dtype)
    return (OKS_SHARE * 2 * math.sqrt(AREA_OF_BOX) / stride * reach * sizes[..., None]).clamp(*limits)


def heatmaps(
    keypoints: Tensor,
    side: int,
    stride: int,
    sigma: float | Tensor = SIGMA,
    *,
    heights: Tensor | None = None,
    counts: Sequence[int] | None = None,
) -> Tensor:
    """(N, K, side / stride, side / stride) float32, as targets.heatmap.

    keypoints: (N, P, K, 3), x and y in crop pixels. sigma: cells, or (N, P, K). heights: (N, P), 1 by default.
    counts: (P,), how many crops have a person of that number, if those with most people come first: a crop of a crowd
    makes no work for the others then.
    """
    sigma = torch.as_tensor(sigma, dtype=keypoints.dtype, device=keypoints.device)[..., None]  # for x and y
    centres = keypoints[..., :2] / stride - 0.5  # (N, P, K, 2)
    cells = torch.arange(side // stride, device=keypoints.device, dtype=keypoints.dtype)
    distances = cells - centres[..., None]  # (N, P, K, 2, cells)
    low, high = torch.floor(centres - REACH * sigma), torch.ceil(centres + REACH * sigma)
    drawn = (cells >= low[..., None]) & (cells <= high[..., None]) & (keypoints[..., 2] > 0)[..., None, None]
    bells = torch.where(drawn, torch.exp(-distances.square() / (2 * sigma[..., None] ** 2)), 0.0).float()
    if heights is not None:
        bells[..., 0, :] *= heights[..., None, None].float()
    across, down = bells[..., 0, None, :], bells[..., 1, :, None]  # (N, P, K, 1, cells), (N, P, K, cells, 1)
    maps = down[:, 0] * across[:, 0]
    for person in range(1, keypoints.shape[1]):  # one at a time: the product for all people would be gigabytes
        crops = len(maps) if counts is None else counts[person]
        theirs = down[:crops, person] * across[:crops, person]
        torch.maximum(maps[:crops], theirs, out=maps[:crops])
    return maps


def tag_cells(keypoints: Tensor, side: int, max_people: int, stride: int = 4) -> Tensor:
    """(N, max_people, K) int64, as targets.tag_cells, from (N, P, K, 3)."""
    cells = side // stride
    found = keypoints[..., 2] > 0  # (N, P, K)
    column, row = ((keypoints[..., axis] // stride).clamp(0, cells - 1).long() for axis in (0, 1))
    flat = torch.where(found, row * cells + column, -1)
    order = torch.argsort(found.sum(2), dim=1, descending=True, stable=True)[:, :max_people]
    flat = flat.gather(1, order[..., None].expand(-1, -1, flat.shape[2]))
    return torch.nn.functional.pad(flat, (0, 0, 0, max_people - flat.shape[1]), value=-1)
