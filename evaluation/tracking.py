"""Scores of ids: IDF1, HOTA and id switches, computed by `trackers.eval` from the OKS of true and detected people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from core.errors import EngineError
from core.joints import sigmas_for
from evaluation.annotations import Annotations
from pipeline.types import People

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class TruePeople:
    """One frame's annotated people.

    keypoints: (G, K, 3) x, y in pixels, v as in COCO; areas: (G,) square pixels; track_ids: (G,) identities.
    """

    track_ids: NDArray[np.int64]
    keypoints: Floats
    areas: Floats

    def oks(self, people: People) -> Floats:
        """(G, P): COCO's OKS over the annotated joints. As in COCO, a joint that was not found counts as at (0, 0)."""
        offset = people.keypoints.astype(np.float64)[None] - self.keypoints[:, None, :, :2]  # (G, P, K, 2)
        variance = 2 * (2 * np.array(sigmas_for(self.keypoints.shape[1]))) ** 2 * np.maximum(self.areas, 1)[:, None]
        similarity = np.exp(-np.einsum("gpki,gpki->gpk", offset, offset) / variance[:, None])
        labelled = self.keypoints[..., 2] > 0  # (G, K)
        total = np.where(labelled[:, None], similarity, 0).sum(axis=2)
        return np.asarray(total / np.maximum(labelled.sum(axis=1), 1)[:, None])


@dataclass(frozen=True)
class TrackingScores:
    """idf1, hota: 0 to 1. switches: how often the id of a true person changed. A match has an OKS of at least 0.5."""

    idf1: float
    hota: float
    switches: int


def true_people(annotations: Annotations) -> list[TruePeople]:
    """The annotated people of every image, except those without a labelled joint.

    Raises ValueError if an annotation has no `track_id`.
    """
    by_image: dict[int, list[tuple[int, list[float], float]]] = {image_id: [] for image_id, _ in annotations.images}
    for one in annotations.dataset["annotations"]:
        if "track_id" not in one:
            raise ValueError(f"{annotations.path} has no identities: annotation {one['id']} has no track_id")
        if one["num_keypoints"]:
            by_image[one["image_id"]].append((one["track_id"], one["keypoints"], one["area"]))
    return [
        TruePeople(
            np.array([track_id for track_id, _, _ in people], np.int64),
            np.array([keypoints for _, keypoints, _ in people], np.float64).reshape(len(people), annotations.joints, 3),
            np.array([area for _, _, area in people], np.float64),
        )
        for people in by_image.values()
    ]


def score_tracks(truth: Sequence[TruePeople], found: Sequence[People]) -> TrackingScores:
    """Scores of a sequence of frames. Detected people without an id (0) are ignored. Raises EngineError if `trackers`
    is not installed."""
    try:
        from trackers.eval import compute_clear_metrics, compute_hota_metrics, compute_identity_metrics
    except ImportError as error:
        raise EngineError("tracking scores need `trackers`, which is not installed: pip install trackers") from error
    named = [people.pick(people.ids > 0) for people in found]
    frames = (
        [one.track_ids for one in truth],
        [people.ids for people in named],
        [one.oks(people) for one, people in zip(truth, named, strict=True)],
    )
    return TrackingScores(
        float(compute_identity_metrics(*frames)["IDF1"]),
        float(compute_hota_metrics(*frames)["HOTA"]),
        int(compute_clear_metrics(*frames)["IDSW"]),
    )
