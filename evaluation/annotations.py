"""Keypoint annotations in COCO's format: COCO's own 17 joints, CrowdPose's 14, or the sample clip's."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.coco import CocoAnnotation, CocoFile
from core.errors import SourceError
from core.joints import JOINT_SETS

# Share of a person's box: CrowdPose's evaluation program computes the area so, and it is the mean of COCO's people.
AREA_OF_BOX = 0.53


@dataclass(frozen=True)
class Annotations:
    """A COCO file, completed for evaluation.

    dataset: the file's content; missing `area`, `iscrowd` and `num_keypoints` are added. images: (id, file name) in
    the file's order. crowd_index: image id -> CrowdPose's measure of crowding; empty for other files.
    """

    path: str
    dataset: CocoFile
    images: tuple[tuple[int, str], ...]
    joints: int
    category_id: int
    crowd_index: dict[int, float]

    def first(self, limit: int | None) -> tuple[tuple[int, str], ...]:
        """The first `limit` images; all for None."""
        return self.images[:limit]


def load_annotations(path: Path) -> Annotations:
    """Raises SourceError for a file that holds no keypoint annotations."""
    dataset = read_json(path, "COCO keypoint annotations")
    if not isinstance(dataset, dict) or not dataset.get("images") or "annotations" not in dataset:
        raise SourceError(f"{path} holds no COCO annotations; expected JSON with images, annotations and categories")
    try:
        images = tuple((int(image["id"]), str(image["file_name"])) for image in dataset["images"])
        lengths = {len(annotation["keypoints"]) for annotation in dataset["annotations"]}
        categories = {annotation["category_id"] for annotation in dataset["annotations"]}
        crowd_index = {int(i["id"]): float(i["crowdIndex"]) for i in dataset["images"] if "crowdIndex" in i}
        people = [_filled(annotation, crowded=bool(crowd_index)) for annotation in dataset["annotations"]]
    except (KeyError, TypeError, ValueError) as error:
        raise SourceError(f"{path} holds no keypoint annotations: {type(error).__name__} {error}") from error
    if 0 < len(crowd_index) < len(images):
        raise SourceError(
            f"{path} has crowdIndex for {len(crowd_index)} of {len(images)} images; expected it for all, as in "
            "CrowdPose's files, or for none"
        )
    known = {3 * len(joint_set) for joint_set in JOINT_SETS.values()}
    if len(lengths) != 1 or len(categories) != 1 or lengths.pop() not in known:
        raise SourceError(
            f"{path} does not have one category with 17 (COCO) or 14 (CrowdPose) joints; expected a person_keypoints "
            "or crowdpose file"
        )
    joints = len(people[0]["keypoints"]) // 3
    filled = CocoFile(**{**dataset, "annotations": people})  # type: ignore[typeddict-item]  # other keys stay
    filled.setdefault("categories", [{"id": people[0]["category_id"], "name": "person"}])
    return Annotations(str(path), filled, images, joints, int(categories.pop()), crowd_index)


def read_json(path: Path, what: str) -> Any:  # whatever the file holds: the caller checks
    """Raises SourceError if the file cannot be read or is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}; expected {what}") from error
    except ValueError as error:
        raise SourceError(f"{path} is not JSON: {error}; expected {what}") from error


def _filled(annotation: CocoAnnotation, *, crowded: bool) -> CocoAnnotation:
    width, height = annotation["bbox"][2:4]
    keypoints = [float(value) for value in annotation["keypoints"]]
    filled: CocoAnnotation = {"iscrowd": 0, "area": width * height * AREA_OF_BOX, **annotation, "keypoints": keypoints}
    filled.setdefault("num_keypoints", sum(v > 0 for v in keypoints[2::3]))
    if crowded:
        filled["area"] = width * height * AREA_OF_BOX
    int(annotation["id"]), int(annotation["image_id"])
    return filled
