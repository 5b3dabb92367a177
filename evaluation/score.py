"""Average precision and recall of COCO results, computed by pycocotools."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from core.coco import CocoResult
from core.errors import EngineError, SourceError
from core.joints import sigmas_for
from evaluation.annotations import Annotations, read_json

if TYPE_CHECKING:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

COCO_STATS = ("AP", "AP50", "AP75", "AP M", "AP L", "AR", "AR50", "AR75", "AR M", "AR L")
# CrowdPose's evaluation program splits images by crowdIndex at these (its paper says 0.1 and 0.8).
CROWD_SPLITS = (("AP easy", -np.inf, 0.2), ("AP medium", 0.2, 0.8), ("AP hard", 0.8, np.inf))
CROWDPOSE_STATS = ("AP", "AP50", "AP75", "AR", "AR50", "AR75")
NO_PEOPLE = -1.0  # pycocotools' score if nobody is annotated

Results = list[CocoResult]


def score_results(annotations: Annotations, results: Results, image_ids: Sequence[int]) -> dict[str, float]:
    """Name -> value in 0..1, on these images only; -1 if no annotated person belongs to the category.

    results: COCO result dicts (`People.to_coco`). At most 20 people an image count, those with the highest `score`.
    With 14 joints, CrowdPose's rules: its sigmas, an area of 0.53 boxes, and AP by crowding instead of by size.
    """
    if annotations.joints == 17:
        return _evaluate(annotations, results, image_ids)
    scores = _evaluate(annotations, results, image_ids)
    selected = {name: scores[name] for name in CROWDPOSE_STATS}
    for name, low, high in CROWD_SPLITS if annotations.crowd_index else ():
        ids = [i for i in image_ids if low <= annotations.crowd_index[i] < high]
        selected[name] = _evaluate(annotations, results, ids)["AP"] if ids else NO_PEOPLE
    return selected


def load_results(path: Path, annotations: Annotations | None = None) -> Results:
    """Read COCO keypoint results. Raises SourceError for any other file, or for results of images not annotated."""
    results = read_json(path, "COCO keypoint results, as --save-json writes them")
    try:
        for result in results:
            int(result["image_id"]), float(result["score"]), len(result["keypoints"])
        lengths = {len(result["keypoints"]) for result in results}
    except (KeyError, TypeError, ValueError) as error:
        raise SourceError(f"{path} holds no COCO keypoint results: {type(error).__name__} {error}") from error
    if len(lengths) > 1 or any(length % 3 for length in lengths):
        raise SourceError(f"{path} has keypoints of {sorted(lengths)} numbers; expected three per joint, equal for all")
    if annotations is not None:
        if lengths - {3 * annotations.joints}:
            raise SourceError(f"{path} has {lengths.pop() // 3} joints; {annotations.path} has {annotations.joints}")
        known = {image_id for image_id, _ in annotations.images}
        unknown = {result["image_id"] for result in results} - known
        if unknown:
            raise SourceError(f"{path} has results for image {min(unknown)}, which {annotations.path} does not know")
    return list(results)


def _evaluate(annotations: Annotations, results: Results, image_ids: Sequence[int]) -> dict[str, float]:
    coco, coco_eval = load_pycocotools()
    with contextlib.redirect_stdout(io.StringIO()):
        truth = coco()
        truth.dataset = annotations.dataset
        truth.createIndex()
        if results:
            # a copy, since pycocotools modifies its argument
            found = truth.loadRes([{**result, "category_id": annotations.category_id} for result in results])
        else:  # loadRes fails on an empty list
            found = coco()
            found.dataset = {**annotations.dataset, "annotations": []}
            found.createIndex()
        evaluation = coco_eval(truth, found, "keypoints")
        evaluation.params.imgIds = sorted(image_ids)
        evaluation.params.catIds = [annotations.category_id]
        if annotations.joints != 17:
            evaluation.params.kpt_oks_sigmas = np.array(sigmas_for(annotations.joints))
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return dict(zip(COCO_STATS, (float(value) for value in evaluation.stats), strict=True))


def load_pycocotools() -> tuple[type[COCO], type[COCOeval]]:
    """Raises EngineError if it is not installed."""
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError as error:
        raise EngineError("evaluation needs pycocotools, which is not installed: pip install pycocotools") from error
    return COCO, COCOeval
