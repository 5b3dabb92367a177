"""Four small drawn pictures of stick figures and their COCO labels: training data without files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

# A person in a box of 1 x 1: COCO's 17 joints.
POSE = np.array([
    (0.50, 0.08), (0.55, 0.05), (0.45, 0.05), (0.61, 0.07), (0.39, 0.07), (0.70, 0.24), (0.30, 0.24), (0.82, 0.40),
    (0.18, 0.40), (0.90, 0.55), (0.10, 0.55), (0.62, 0.56), (0.38, 0.56), (0.66, 0.77), (0.34, 0.77),
    (0.68, 0.97), (0.32, 0.97),
])  # fmt: skip
BONES = (
    *((5, 7), (7, 9), (6, 8), (8, 10), (5, 6), (5, 11), (6, 12), (11, 12)),
    *((11, 13), (13, 15), (12, 14), (14, 16), (0, 5), (0, 6)),
)
# Of each picture, each person's box (x, y, w, h) in pixels.
PEOPLE = (
    ((8, 10, 50, 105), (70, 20, 48, 100)),
    ((30, 12, 60, 110),),
    ((4, 30, 44, 90), (78, 8, 46, 112)),
    ((20, 8, 40, 90), (66, 30, 52, 94)),
)
SIDE = 128


def draw(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Picture `number`: (128, 128, 3) uint8 BGR and its people's keypoints (P, 17, 3) float32, all visible."""
    rng = np.random.default_rng(number)
    image = np.full((SIDE, SIDE, 3), rng.integers(120, 220, 3), np.uint8)
    people = []
    for x, y, w, h in PEOPLE[number]:
        joints = POSE * (w, h) + (x, y)
        for index, (a, b) in enumerate(BONES):
            colour = tuple(int(v) for v in np.random.default_rng(index + 100).integers(0, 255, 3))
            cv2.line(image, _pixel(joints[a]), _pixel(joints[b]), colour, 3)
        for index, joint in enumerate(joints):
            colour = tuple(int(v) for v in np.random.default_rng(index).integers(0, 255, 3))
            cv2.circle(image, _pixel(joint), 2, colour, -1)
        people.append(np.column_stack([joints, np.full(len(joints), 2)]))
    return image, np.array(people, np.float32)


def write(folder: Path) -> Path:
    """Write the four pictures and their COCO file to `folder`; returns the file's path."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number in range(len(PEOPLE)):
        image, people = draw(number)
        cv2.imwrite(str(folder / f"{number}.png"), image)
        images.append({"id": number + 1, "file_name": f"{number}.png", "width": SIDE, "height": SIDE})
        for keypoints, box in zip(people, PEOPLE[number], strict=True):
            annotation: dict[str, Any] = {
                "id": len(annotations) + 1,
                "image_id": number + 1,
                "category_id": 1,
                "iscrowd": 0,
            }
            annotation |= {"num_keypoints": 17, "bbox": list(box), "area": 0.5 * box[2] * box[3]}
            annotations.append(annotation | {"keypoints": keypoints.ravel().tolist()})
    categories = [{"id": 1, "name": "person", "keypoints": [str(j) for j in range(17)], "skeleton": []}]
    path = folder / "labels.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path


def _pixel(point: np.ndarray) -> tuple[int, int]:
    return int(point[0]), int(point[1])
