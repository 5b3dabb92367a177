"""AP of a network on labelled pictures, with the same letterbox and decode as evaluate.py."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from core.coco import CocoResult
from core.errors import SourceError
from core.spec import ModelSpec
from evaluation.annotations import load_annotations
from evaluation.score import load_pycocotools, score_results
from export.head import Aggregated, HigherHead
from kernels.cpu import decode, preprocess
from kernels.options import DecodeOptions
from pipeline.letterbox import Letterbox

NAMES = ("AP", "AP50", "AP75", "AP M", "AP L", "AP easy", "AP medium", "AP hard", "AR")  # those that the labels allow


class Maps(NamedTuple):
    """What a network gives for a picture: heatmaps (1, K, h, w) and tags (1, D * K, h / 2, w / 2), float32."""

    image_id: int
    box: Letterbox
    heatmaps: NDArray[np.float32]
    tags: NDArray[np.float32]


class Validation:
    """Measures AP on labelled pictures. Call it with a model in eval mode.

    labels: COCO keypoint JSON of the pictures in `folder`. spec: the model's input. limit: number of pictures, evenly
    spread over the file; 0 for all. The AP of a part of a set serves only to compare runs. options: of the decode.
    Raises SourceError for invalid labels or a missing picture, EngineError if pycocotools is not installed.
    """

    def __init__(
        self,
        labels: Path,
        folder: Path,
        spec: ModelSpec,
        limit: int = 0,
        options: DecodeOptions | None = None,
    ) -> None:
        self.annotations = load_annotations(labels)
        self.folder = folder
        self.spec = spec
        self.options = options or DecodeOptions()
        images = sorted(self.annotations.images)
        count = min(limit, len(images)) if limit else len(images)
        self.images = [images[i * len(images) // count] for i in range(count)]
        load_pycocotools()
        missing = next((name for _, name in self.images if not (folder / name).is_file()), None)
        if missing is not None:
            raise SourceError(f"{folder / missing} does not exist; expected the pictures of {labels} there")

    def __call__(self, model: nn.Module) -> dict[str, float]:
        """AP, AP50, AP75 and AR, 0..1; of COCO also AP M and AP L, of CrowdPose AP easy, medium and hard. -1 if nobody
        of that size or in such a crowd is labelled."""
        return self.score(self.people(model))

    def score(self, people: list[CocoResult]) -> dict[str, float]:
        """As a call, of the COCO results of every picture."""
        scores = score_results(self.annotations, people, [image_id for image_id, _ in self.images])
        return {name: round(scores[name], 4) for name in NAMES if name in scores}

    def people(self, model: nn.Module) -> list[CocoResult]:
        """COCO results of every picture."""
        return [person for maps in self.maps(model) for person in self.decode(maps)]

    @torch.no_grad()
    def maps(self, model: nn.Module) -> Iterator[Maps]:
        """The network's outputs for every picture."""
        if not isinstance(model, HigherHead):
            raise TypeError(f"model is {type(model).__name__}; expected a HigherHead")
        device = next(model.parameters()).device
        network = Aggregated(model).eval()
        for image_id, name in self.images:
            path = self.folder / name
            image = cv2.imread(str(path), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
            if image is None:
                raise SourceError(f"{path} cannot be read as a picture")
            box = Letterbox.for_model((image.shape[1], image.shape[0]), self.spec)
            tensor = np.empty((3, *box.input_hw), np.float32)
            preprocess(image, tensor, scale=box.scale, center=box.center, mean=self.spec.mean, std=self.spec.std)  # type: ignore[arg-type]  # IMREAD_COLOR gives uint8
            heatmaps, tags = network(torch.from_numpy(tensor)[None].to(device))
            yield Maps(image_id, box, heatmaps.cpu().numpy(), tags.cpu().numpy())

    def decode(self, maps: Maps) -> list[CocoResult]:
        """COCO results of a picture."""
        keypoints, scores = decode(maps.heatmaps, maps.tags, self.options)
        keypoints[..., :2] = maps.box.to_frame(keypoints[..., :2])
        return [
            CocoResult(
                image_id=maps.image_id,
                category_id=self.annotations.category_id,
                keypoints=person.ravel().tolist(),
                bbox=_box(person),
                score=float(score),
            )
            for person, score in zip(keypoints, scores, strict=True)
        ]


def _box(person: NDArray[np.float32]) -> list[float]:
    """x, y, width, height of the found joints of (K, 3); its area decides whether a person counts in AP M or AP L."""
    found = person[person[:, 2] > 0, :2] if (person[:, 2] > 0).any() else person[:, :2]
    return [*found.min(0).tolist(), *np.ptp(found, axis=0).tolist()]
