"""Compares two sets of results: which people are in both, and the distances between their keypoints."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from core.oks import joint_similarities
from evaluation.annotations import AREA_OF_BOX
from evaluation.score import Results

MIN_OKS = 0.5  # of a match

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Comparison:
    """people: of each set. matched: people in both sets. distances: pixels between the keypoints that both found."""

    people: tuple[int, int]
    matched: int
    distances: Floats

    @property
    def mean(self) -> float:
        """Mean distance in pixels; NaN if nobody matched."""
        return float(self.distances.mean()) if len(self.distances) else float("nan")

    def percentile(self, q: float) -> float:
        return float(np.percentile(self.distances, q)) if len(self.distances) else float("nan")


def compare_results(first: Results, second: Results) -> Comparison:
    """Match people image by image, the most similar pair first, while their OKS is at least MIN_OKS.

    Both are COCO results with equally many joints; raises ValueError otherwise. A keypoint with score 0 was not found.
    """
    lengths = {len(result["keypoints"]) for result in (*first, *second)}
    if len(lengths) > 1:
        raise ValueError(f"results have {sorted(n // 3 for n in lengths)} joints; expected the same joint set in both")
    ones, others = _by_image(first), _by_image(second)
    matched = 0
    distances: list[Floats] = [np.zeros(0)]
    for image_id in ones.keys() & others.keys():
        a, b = ones[image_id], others[image_id]
        similarity = np.array([[_oks(one, other) for other in b] for one in a])  # (A, B)
        while similarity.max(initial=0.0) >= MIN_OKS:
            i, j = np.unravel_index(similarity.argmax(), similarity.shape)
            similarity[i, :] = similarity[:, j] = -1.0
            matched += 1
            both = (a[i][:, 2] > 0) & (b[j][:, 2] > 0)
            distances.append(np.linalg.norm(a[i][both, :2] - b[j][both, :2], axis=1))
    return Comparison((len(first), len(second)), matched, np.concatenate(distances))


def _by_image(results: Results) -> dict[int, list[Floats]]:
    """Image id -> (K, 3) x, y, score of each person."""
    people: dict[int, list[Floats]] = defaultdict(list)
    for result in results:
        people[result["image_id"]].append(np.asarray(result["keypoints"], np.float64).reshape(-1, 3))
    return people


def _oks(one: Floats, other: Floats) -> float:
    """Object keypoint similarity over the joints of either person, with the area of the first."""
    both = (one[:, 2] > 0) & (other[:, 2] > 0)
    if not both.any():
        return 0.0
    extent = np.ptp(one[one[:, 2] > 0, :2], axis=0)
    area = max(float(extent.prod()) * AREA_OF_BOX, 1.0)
    # a joint that only one person has counts as 0
    either = int(((one[:, 2] > 0) | (other[:, 2] > 0)).sum())
    return float(joint_similarities(one[:, :2], other[:, :2], area)[both].sum() / either)
