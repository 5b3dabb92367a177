"""All pictures of a mixture, decoded once, and their labels, in the memory of a device."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from train.pictures import Labels, Pictures

CHUNK = 512  # pictures copied to the device at a time


class DevicePictures:
    """The pictures of `sets`, one after the other; picture n of set s has the number first[s] + n.

    pixels: (total,) int32 on the device, the rows of all pictures. The bytes of a pixel are R, G, B, and 255 where an
    ignored region covers it, else 0.
    keypoints: (pictures, P, K, 3) float32 on the device; zeros beyond a picture's people. sizes: (pictures, P) float32
    on the device, pixels. labelled: (pictures, K) bool
    on the device.
    On the host: offsets (pictures,) int64 into pixels; sizes_wh (pictures, 2) int64; people (pictures,) int64, their
    number; centres (pictures, P, 2) float64, the middle of the box around each person's keypoints, pixels.
    threads: that decode, by default one per CPU.
    """

    def __init__(self, sets: Sequence[Pictures], device: str | torch.device, threads: int = 0) -> None:
        self.first = np.cumsum([0, *(len(pictures) for pictures in sets)])
        numbered = [(pictures, index) for pictures in sets for index in range(len(pictures))]
        parts: list[Tensor] = []
        sizes: list[tuple[int, ...]] = []
        labels: list[Labels] = []
        with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
            stream = pool.map(_decode, numbered)
            while decoded := list(islice(stream, CHUNK)):
                parts.append(torch.from_numpy(np.concatenate([pixels.ravel() for pixels, _ in decoded])).to(device))
                sizes += [pixels.shape[::-1] for pixels, _ in decoded]
                labels += [label for _, label in decoded]
        self.pixels = torch.cat(parts)
        self.sizes_wh = np.array(sizes, np.int64)
        areas = self.sizes_wh.prod(1)
        self.offsets = np.cumsum(areas) - areas
        self.people = np.array([len(label.keypoints) for label in labels])
        keypoints = np.zeros((len(labels), max(1, self.people.max()), sets[0].joints, 3), np.float32)
        sizes_of_people = np.zeros(keypoints.shape[:2], np.float32)
        for padded, padded_sizes, label in zip(keypoints, sizes_of_people, labels, strict=True):
            padded[: len(label.keypoints)] = label.keypoints
            padded_sizes[: len(label.keypoints)] = label.sizes
        self.centres = _centres(keypoints)
        self.keypoints = torch.from_numpy(keypoints).to(device)
        self.sizes = torch.from_numpy(sizes_of_people).to(device)
        self.labelled = torch.from_numpy(np.array([label.labelled for label in labels])).to(device)

    def __len__(self) -> int:
        return len(self.offsets)


def _decode(numbered: tuple[Pictures, int]) -> tuple[NDArray[np.int32], Labels]:
    """A picture's pixels (H, W), four bytes each as in DevicePictures, and its labels."""
    image, labels = numbered[0].read(numbered[1])
    pixels = cv2.cvtColor(image, cv2.COLOR_BGR2RGBA)
    ignored = np.zeros(image.shape[:2], np.uint8)
    for polygon in labels.ignore:
        cv2.fillPoly(ignored, [np.round(polygon).astype(np.int32)], 255)
    pixels[..., 3] = ignored
    return pixels.view(np.int32)[..., 0], labels


def _centres(keypoints: NDArray[np.float32]) -> NDArray[np.float64]:
    """(pictures, P, 2): the middle of the box around the labelled keypoints of (pictures, P, K, 3); 0 without any."""
    xy, found = keypoints[..., :2].astype(np.float64), keypoints[..., 2:] > 0
    low = np.where(found, xy, np.inf).min(2)
    high = np.where(found, xy, -np.inf).max(2)
    empty = ~found.any((2, 3))
    low[empty] = high[empty] = 0.0
    middle: NDArray[np.float64] = (low + high) / 2
    return middle
