"""The tags of an oracle: with them, AP is a measure of the heatmaps alone."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from numpy.typing import NDArray

from evaluation.annotations import Annotations
from train.validate import Maps

APART = 10.0  # between the tags of two people; the decode separates them from 1 on


class TrueTags:
    """Gives tags by which a peak belongs to the labelled person whose joint of this kind is nearest."""

    def __init__(self, annotations: Annotations) -> None:
        self.joints = annotations.joints
        self._people: dict[int, list[list[float]]] = defaultdict(list)
        for annotation in annotations.dataset["annotations"]:
            self._people[annotation["image_id"]].append(annotation["keypoints"])

    def __call__(self, maps: Maps) -> NDArray[np.float32]:
        """(1, K, h, w), height and width of `maps.tags`: APART times the person's number; 0 if nobody is labelled."""
        height, width = maps.tags.shape[2:]
        people = np.array(self._people[maps.image_id], np.float64).reshape(-1, self.joints, 3)
        if not len(people):
            return np.zeros((1, self.joints, height, width), np.float32)
        xy = maps.box.to_input(people[..., :2]) * height / maps.box.input_hw[0] - 0.5  # (P, K, 2), cells
        across, down = (np.square(xy[..., axis, None] - np.arange(cells)) for axis, cells in enumerate((width, height)))
        distances = across[:, :, None] + down[..., None]  # (P, K, h, w)
        distances[people[..., 2] == 0] = np.inf
        tags: NDArray[np.float32] = (APART * distances.argmin(0)[None]).astype(np.float32)
        return tags
