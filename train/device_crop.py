"""Crops of a whole batch, made on a device: the image operations of augment.py on tensors."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

GREY = (0.299, 0.587, 0.114)  # of R, G, B
BLUR_REACH = 5  # pixels to each side: cv2's kernel for the largest sigma, 1.5


def warp(  # noqa: PLR0917  # private to the mixture, called once
    pixels: Tensor, offsets: Tensor, widths: Tensor, heights: Tensor, inverse: Tensor, side: int
) -> Tensor:
    """(N, side, side, 4) float32, 0..255: bilinear samples of the pictures, 0 outside, as cv2.warpAffine.

    pixels: as in DevicePictures. offsets, widths, heights: (N,) int64, of each crop's picture. inverse: (N, 2, 3)
    float64, from crop to picture.
    """
    out = torch.zeros((len(inverse), side, side, 4), device=pixels.device)
    for index, share in neighbours(offsets, widths, heights, inverse, side):
        out.addcmul_(pixels[index].view(torch.uint8).view(out.shape).float(), share[..., None])
    return out


def neighbours(
    offsets: Tensor, widths: Tensor, heights: Tensor, inverse: Tensor, side: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """The four neighbours of a bilinear sample: places (N, side, side) in a flat array, and shares, 0 outside.

    offsets, widths, heights: (N,) int64, of each crop's source in the array. inverse: (N, 2, 3) float64, from crop to
    source.
    """
    cells = torch.arange(side, device=inverse.device, dtype=torch.float64)
    x, y = (
        (
            inverse[:, axis, 0, None, None] * cells
            + inverse[:, axis, 1, None, None] * cells[:, None]
            + inverse[:, axis, 2, None, None]
        ).float()
        for axis in (0, 1)
    )  # (N, side, side)
    left, top = x.floor(), y.floor()
    right_share, lower_share = x - left, y - top
    columns, rows = left.int(), top.int()
    widths, heights, offsets = (value[:, None, None] for value in (widths, heights, offsets))
    for below in (0, 1):
        row = rows + below
        row_share = (lower_share if below else 1 - lower_share) * ((row >= 0) & (row < heights))
        start = offsets + row.clamp(min=0).minimum(heights - 1) * widths
        for right in (0, 1):
            column = columns + right
            share = row_share * (right_share if right else 1 - right_share) * ((column >= 0) & (column < widths))
            yield start + column.clamp(min=0).minimum(widths - 1), share


def recolour(images: Tensor, saturation: Tensor, shift: Tensor, gain: Tensor) -> Tensor:
    """The images (N, side, side, 3), 0..255, with changed colours, rounded; saturation, shift: (N, 1); gain: (N, 3)."""
    saturation, shift, gain = (value[:, None, None] for value in (saturation, shift, gain))
    images = images.round()
    grey = sum(weight * images[..., i : i + 1] for i, weight in enumerate(GREY)).round()  # type: ignore[union-attr]
    images = torch.lerp(grey, images, saturation).round().clamp(0, 255)
    return ((images - 128) * gain + 128 + shift).clamp(0, 255).floor()


def blur(images: Tensor, weights: Tensor) -> Tensor:
    """The images (N, side, side, 3) blurred with weights (N, 2 BLUR_REACH + 1), mirrored at the border, rounded."""
    x = images.permute(0, 3, 1, 2)
    side = x.shape[2]
    for axis in (2, 3):
        border = (0, 0, BLUR_REACH, BLUR_REACH) if axis == 2 else (BLUR_REACH, BLUR_REACH, 0, 0)
        padded = F.pad(x, border, mode="reflect")
        x = torch.zeros_like(x)
        for place in range(2 * BLUR_REACH + 1):
            x.addcmul_(padded.narrow(axis, place, side), weights[:, place, None, None, None])
    return x.permute(0, 2, 3, 1).round().clamp(0, 255)


def blur_weights(sigmas: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, 2 BLUR_REACH + 1): Gaussians of the width that cv2.GaussianBlur chooses for 8-bit images."""
    places = np.arange(-BLUR_REACH, BLUR_REACH + 1)
    reach = (np.round(6 * sigmas + 1).astype(int) | 1) // 2
    weights = np.exp(-(places**2) / (2 * sigmas[:, None] ** 2)) * (np.abs(places) <= reach[:, None])
    normalised: NDArray[np.float64] = weights / weights.sum(1, keepdims=True)
    return normalised


def move(keypoints: Tensor, matrices: Tensor, side: int) -> Tensor:
    """Keypoints (N, P, K, 3) under matrices (N, 2, 3); zeros where there is no label or outside the crop."""
    xy = torch.einsum("npkj,nij->npki", keypoints[..., :2], matrices[..., :2]) + matrices[:, None, None, :, 2]
    inside = ((xy >= 0) & (xy < side)).all(3) & (keypoints[..., 2] > 0)
    return torch.cat([xy, keypoints[..., 2:]], 3) * inside[..., None]
