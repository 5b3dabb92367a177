"""The parts of COCO's keypoint files that are read or written here, as types. The JSON's own names and units."""

from __future__ import annotations

from typing import TypedDict


class CocoImage(TypedDict, total=False):
    id: int
    file_name: str
    width: int
    height: int
    crowdIndex: float  # CrowdPose's measure of crowding, 0 to 1


class CocoAnnotation(TypedDict, total=False):
    """A person. keypoints: x, y, v per joint; v is 0 not labelled, 1 hidden, 2 visible (a network's label: a score)."""

    id: int
    image_id: int
    category_id: int
    keypoints: list[float]
    num_keypoints: int
    area: float
    bbox: list[float]  # x, y, width, height
    iscrowd: int
    ignore: int
    track_id: int  # the same person in every image of a video
    segmentation: object  # polygons, or a run-length encoding


class CocoCategory(TypedDict, total=False):
    id: int
    name: str
    supercategory: str
    keypoints: list[str]
    skeleton: list[list[int]]  # pairs of joint numbers, which start at 1


class CocoFile(TypedDict, total=False):
    info: dict[str, object]
    licenses: list[object]
    images: list[CocoImage]
    annotations: list[CocoAnnotation]
    categories: list[CocoCategory]


class CocoResult(TypedDict):
    """A detected person. keypoints: x, y, score per joint."""

    image_id: int
    category_id: int
    keypoints: list[float]
    bbox: list[float]
    score: float
