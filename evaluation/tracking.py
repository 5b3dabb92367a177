"""How well ids follow people: IDF1, HOTA and id switches by `trackers.eval`, on OKS between true and found people."""

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

    keypoints: (G, K, 3) x, y in pixels, v of COCO; areas: (G,) square pixels; track_ids: (G,), who each one is.
    """

    track_ids: NDArray[np.int64]
    keypoints: Floats
    areas: Floats

    def oks(self, people: People) -> Floats:
        """(G, P): COCO's OKS, over the annotated joints; a joint that was not found counts from where it is put."""
        apart = people.keypoints.astype(np.float64)[None] - self.keypoints[:, None, :, :2]  # (G, P, K, 2)
        spread = 2 * (2 * np.array(sigmas_for(self.keypoints.shape[1]))) ** 2 * np.maximum(self.areas, 1)[:, None]
        likeness = np.exp(-np.einsum("gpki,gpki->gpk", apart, apart) / spread[:, None])
        labelled = self.keypoints[..., 2] > 0  # (G, K)
        total = np.where(labelled[:, None], likeness, 0).sum(axis=2)
        return np.asarray(total / np.maximum(labelled.sum(axis=1), 1)[:, None])


@dataclass(frozen=True)
class TrackingScores:
    """idf1, hota: 0 to 1. switches: how often a true person's id changed. Matches need an OKS of 0.5."""

    idf1: float
    hota: float
    switches: int


def true_people(annotations: Annotations) -> list[TruePeople]:
    """The annotated people of every image, those with no labelled joint left out.

    Raises ValueError if an annotation has no `track_id`.
    """
    by_image: dict[int, list[tuple[int, list[float], float]]] = {image_id: [] for image_id, _ in annotations.images}
    for one in annotations.dataset["annotations"]:
        if "track_id" not in one:
            raise ValueError(f"{annotations.path} does not say who is who: annotation {one['id']} has no track_id")
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
    """Frame by frame, in order; found people without an id (0) are left out. Raises EngineError without `trackers`."""
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
