"""AP of a network on labelled pictures, through the project's own letterbox and decode, as in evaluate.py."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import nn

from core.errors import SourceError
from core.spec import ModelSpec
from export.head import Aggregated, HigherHead
from kernels.cpu import decode, preprocess
from pipeline.letterbox import Letterbox

NAMES = ("AP", "AP50", "AP75", "AP_medium", "AP_large", "AR")


class Validation:
    """Pictures to measure AP on. Call it with a model in eval mode.

    labels: COCO keypoint JSON; its pictures lie in `folder`. spec: how the model wants them. limit: only this many
    pictures, evenly spread over the file; 0 for all. The AP of part of a set is for comparing runs, nothing else.
    """

    def __init__(self, labels: Path, folder: Path, spec: ModelSpec, limit: int = 0) -> None:
        from pycocotools.coco import COCO

        try:
            with contextlib.redirect_stdout(io.StringIO()):
                self.coco = COCO(str(labels))
        except (OSError, ValueError, KeyError) as error:
            raise SourceError(f"{labels} is not a COCO keypoint file: {error!r}") from error
        self.folder = folder
        self.spec = spec
        ids = sorted(self.coco.imgs)
        self.image_ids = ids if not limit else [ids[i * len(ids) // limit] for i in range(min(limit, len(ids)))]

    def __call__(self, model: nn.Module) -> dict[str, float]:
        """AP, AP50, AP75, AP_medium, AP_large and AR, 0..1 (-1 where nobody of that size is labelled)."""
        from pycocotools.cocoeval import COCOeval

        people = self.people(model)
        if not people:
            return dict.fromkeys(NAMES, 0.0)
        with contextlib.redirect_stdout(io.StringIO()):
            score = COCOeval(self.coco, self.coco.loadRes(people), "keypoints")
            score.params.imgIds = self.image_ids
            score.evaluate()
            score.accumulate()
            score.summarize()
        return {name: round(float(value), 4) for name, value in zip(NAMES, score.stats, strict=False)}

    @torch.no_grad()
    def people(self, model: nn.Module) -> list[dict[str, Any]]:
        """COCO results of every picture."""
        if not isinstance(model, HigherHead):
            raise TypeError(f"model is {type(model).__name__}; expected a HigherHead")
        device = next(model.parameters()).device
        network = Aggregated(model).eval()
        found: list[dict[str, Any]] = []
        for image_id in self.image_ids:
            path = self.folder / self.coco.imgs[image_id]["file_name"]
            image = cv2.imread(str(path), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
            if image is None:
                raise SourceError(f"{path} cannot be read as a picture")
            box = Letterbox.for_model((image.shape[1], image.shape[0]), self.spec)
            tensor = np.empty((3, *box.input_hw), np.float32)
            preprocess(image, tensor, scale=box.scale, center=box.center, mean=self.spec.mean, std=self.spec.std)  # type: ignore[arg-type]  # IMREAD_COLOR gives uint8
            heatmaps, tags = network(torch.from_numpy(tensor)[None].to(device))
            keypoints, scores = decode(heatmaps.cpu().numpy(), tags.cpu().numpy())
            keypoints[..., :2] = box.to_frame(keypoints[..., :2])
            found += [
                {"image_id": image_id, "category_id": 1, "keypoints": person.ravel().tolist(), "score": float(score)}
                for person, score in zip(keypoints, scores, strict=True)
            ]
        return found
