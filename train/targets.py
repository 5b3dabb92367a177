"""Training targets of a crop: heatmaps and masks at each resolution, and the cells of each person's tags."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from core.joints import sigmas_for
from train.pictures import Labels

SIGMA = 2.0  # cells, at every resolution, so that the finer map is twice as precise (Cheng et al. 2020, sec. 3.3)
REACH = 3  # a Gaussian is drawn to this many sigmas
LOWEST = 0.5  # height of a small person's Gaussians
OKS_SHARE = 0.5  # sigma of a joint's Gaussian, as a share of the distance at which its OKS is exp(-1/2)
AREA_OF_BOX = 0.53  # of a person, mean over COCO

Limits = tuple[float, float]  # of sigma, cells


def peak_heights(sizes: NDArray[np.floating], full_size: float) -> NDArray[np.float32]:
    """(P,), LOWEST to 1: how high the Gaussians of people of these sizes are, root(size / full_size).

    A joint that is a few pixels off is wrong for a small person and right for a large one (core/oks.py). With the same
    height for all, a person's score, the mean of the peaks, would not tell how exact the joints are.
    full_size: pixels of the crop, as sizes; 0: the height is 1 for all.
    """
    if full_size == 0:
        return np.ones(len(sizes), np.float32)
    return np.asarray(np.clip(np.sqrt(sizes / full_size), LOWEST, 1.0), np.float32)


def joint_sigmas(sizes: NDArray[np.floating], joints: int, stride: int, limits: Limits) -> NDArray[np.float32]:
    """(P, joints) cells: sigma of each joint's Gaussian, in proportion to the person's size, within the limits.

    A heatmap is then close to the OKS of a joint that is placed there (core/oks.py), and a network that predicts its
    mean puts the peak where the expected OKS is largest. With one sigma for all, that of a large person's hip is far
    below what an observer can tell, and the peak follows noise. Source: Luo et al. 2021, "Rethinking the Heatmap
    Regression for Bottom-up Human Pose Estimation", where the network learns each joint's sigma.
    sizes: (P,) pixels of the crop, as in Labels.
    """
    spread = OKS_SHARE * 2 * np.array(sigmas_for(joints)) * np.sqrt(AREA_OF_BOX) * sizes[:, None] / stride
    return np.asarray(np.clip(spread, *limits), np.float32)


def heatmap(
    keypoints: NDArray[np.float32],
    side: int,
    stride: int,
    sigma: float | NDArray[np.float32] = SIGMA,
    heights: Sequence[float] | NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """(K, side / stride, side / stride) float32: Gaussians at keypoints, the maximum of two that overlap.

    keypoints: (P, K, 3), x and y in crop pixels. sigma: cells, or (P, K). heights: (P,), 1 by default. A cell's
    position is its centre, (index + 0.5) * stride.
    Source: Newell et al. 2017, sec. 3.1; sigma as in HigherHRNet.
    """
    cells = side // stride
    maps = np.zeros((keypoints.shape[1], cells, cells), np.float32)
    peaks = np.ones(len(keypoints)) if heights is None else np.asarray(heights)
    sigmas = np.broadcast_to(np.asarray(sigma, np.float64), keypoints.shape[:2])
    for person, height, spread in zip(keypoints, peaks, sigmas, strict=True):
        for joint in np.flatnonzero(person[:, 2] > 0):
            sigma = spread[joint]
            centre = person[joint, :2].astype(np.float64) / stride - 0.5
            low = np.maximum(np.floor(centre - REACH * sigma).astype(int), 0)
            high = np.minimum(np.ceil(centre + REACH * sigma).astype(int) + 1, cells)
            if (low >= high).any():
                continue
            across = height * np.exp(-((np.arange(low[0], high[0]) - centre[0]) ** 2) / (2 * sigma**2))
            down = np.exp(-((np.arange(low[1], high[1]) - centre[1]) ** 2) / (2 * sigma**2))
            window = maps[joint, low[1] : high[1], low[0] : high[0]]
            np.maximum(window, down[:, None] * across, out=window)
    return maps


def loss_mask(labels: Labels, side: int, stride: int) -> NDArray[np.float32]:
    """(side / stride, side / stride) float32: 0 where an ignored region covers the cell, 1 elsewhere."""
    cells = side // stride
    mask = np.ones((cells, cells), np.float32)
    for polygon in labels.ignore:
        cv2.fillPoly(mask, [np.round(polygon / stride - 0.5).astype(np.int32)], 0.0)
    return mask


def tag_cells(keypoints: NDArray[np.float32], side: int, max_people: int, stride: int = 4) -> NDArray[np.int64]:
    """(max_people, K) int64: the cell of the tag map (row * width + column) of each keypoint, -1 if it is not labelled.

    If there are more than `max_people`, the people with the fewest keypoints are left out.
    """
    cells = side // stride
    found = keypoints[..., 2] > 0  # (P, K)
    order = np.argsort(-found.sum(1), kind="stable")[:max_people]
    column, row = (np.clip(keypoints[..., axis] // stride, 0, cells - 1).astype(np.int64) for axis in (0, 1))
    flat = np.where(found, row * cells + column, -1)[order]
    out = np.full((max_people, keypoints.shape[1]), -1, np.int64)
    out[: len(flat)] = flat
    return out
