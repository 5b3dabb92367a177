"""Pictures with labelled people: a COCO keypoint JSON with a folder, both packed in one file, or synthetic pictures."""

from __future__ import annotations

import gzip
import json
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from core.errors import SourceError

PACKED_LABELS = "annotations.json"  # name of the labels inside a pack
AS_LABELLED = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION  # labels are of the pixels before EXIF's rotation


@dataclass(frozen=True, eq=False)
class Labels:
    """The labels of one picture.

    keypoints: (P, K, 3) float32: x, y in pixels, COCO's visibility (0 not labelled, 1 hidden, 2 visible); each person
    has at least one labelled joint.
    sizes: (P,) float32, each person's size in pixels: the root of the area of the box, also of a part outside the crop.
    ignore: polygons (n, 2) float32 around crowds and people without keypoints; the loss is masked there.
    labelled: (K,) bool, the joints that this data set labels; the loss of the others is masked.
    """

    keypoints: NDArray[np.float32]
    sizes: NDArray[np.float32]
    labelled: NDArray[np.bool_]
    ignore: Sequence[NDArray[np.float32]] = field(default_factory=tuple)


class Pictures(Protocol):
    """A list of labelled pictures."""

    joints: int

    def __len__(self) -> int: ...

    def read(self, index: int) -> tuple[NDArray[np.uint8], Labels]:
        """The picture, (H, W, 3) BGR, and its labels. The same index gives the same picture."""
        ...


class CocoPictures:
    """The pictures of a COCO keypoint JSON that have people with keypoints, or `"nobody": true`: certainly no people.

    labels: the JSON, plain or compressed (.json.gz), with `file_name`s relative to `folder`; or a pack made by `pack`,
    with folder None.
    Raises SourceError, with the path, for a missing or invalid file.
    """

    def __init__(self, labels: Path, folder: Path | None = None) -> None:
        self.path = labels
        self.folder = folder
        try:
            if folder is None:
                with zipfile.ZipFile(labels) as archive:
                    raw = json.loads(archive.read(PACKED_LABELS))
            else:
                data = labels.read_bytes()
                raw = json.loads(gzip.decompress(data) if labels.suffix == ".gz" else data)
            self.joints, self._pictures = _parse(raw)
        except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile, EOFError, zlib.error) as error:
            raise SourceError(f"{labels} is not a COCO keypoint file or a pack of one: {error!r}") from error
        self._archive: zipfile.ZipFile | None = None

    def __len__(self) -> int:
        return len(self._pictures)

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_archive": None}  # an open file cannot be pickled

    def read(self, index: int) -> tuple[NDArray[np.uint8], Labels]:
        name, labels = self._pictures[index]
        image = cv2.imdecode(np.frombuffer(self.encoded(index), np.uint8), AS_LABELLED)
        if image is None:
            raise SourceError(f"{name} of {self.path} cannot be decoded as a picture")
        return image, labels  # type: ignore[return-value]  # IMREAD_COLOR gives uint8

    def name(self, index: int) -> str:
        return self._pictures[index][0]

    def encoded(self, index: int) -> bytes:
        """The content of the picture's file."""
        name = self._pictures[index][0]
        if self.folder is not None:
            return (self.folder / name).read_bytes()
        if self._archive is None:
            self._archive = zipfile.ZipFile(self.path)
        return self._archive.read(name)


def pack(labels: Path, folder: Path, out: Path, short_side: int) -> int:
    """Write the pictures of `labels`, reduced to `short_side`, and their labels into one file for CocoPictures. Returns
    the number of pictures.

    Keypoints, boxes and polygons are scaled with the pictures; run-length masks are replaced by their boxes.
    """
    data = labels.read_bytes()
    raw = json.loads(gzip.decompress(data) if labels.suffix == ".gz" else data)
    shown = {a["image_id"] for a in raw["annotations"] if a.get("num_keypoints", 0) > 0}
    shown |= {image["id"] for image in raw["images"] if image.get("nobody")}
    pictures = [image for image in raw["images"] if image["id"] in shown]
    factors = {}
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for picture in pictures:
            image = cv2.imread(str(folder / picture["file_name"]), AS_LABELLED)
            if image is None:
                raise SourceError(f"{folder / picture['file_name']} cannot be read as a picture")
            factor = min(1.0, short_side / min(image.shape[:2]))
            factors[picture["id"]] = factor
            if factor < 1:
                image = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
            encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 92])[1]
            picture["file_name"] = f"{picture['id']}.jpg"
            archive.writestr(picture["file_name"], encoded.tobytes())
        annotations = [_scaled(a, factors[a["image_id"]]) for a in raw["annotations"] if a["image_id"] in shown]
        packed = {"images": pictures, "annotations": annotations, "categories": raw["categories"]}
        archive.writestr(PACKED_LABELS, json.dumps(packed), zipfile.ZIP_DEFLATED)
    return len(pictures)


class DrawnPictures:
    """Synthetic pictures (samples/people.py), the same for the same seed.

    Each is drawn once per process, in 50 ms, and kept in memory, a third of a megabyte.
    """

    joints = 17

    def __init__(
        self, count: int, *, size_wh: tuple[int, int] = (384, 288), max_people: int = 6, seed: int = 0
    ) -> None:
        self.count = count
        self.size_wh = size_wh
        self.max_people = max_people
        self.seed = seed
        self._drawn: dict[int, tuple[NDArray[np.uint8], Labels]] = {}

    def __len__(self) -> int:
        return self.count

    def read(self, index: int) -> tuple[NDArray[np.uint8], Labels]:
        if index not in self._drawn:
            self._drawn[index] = self._draw(index)
        return self._drawn[index]

    def _draw(self, index: int) -> tuple[NDArray[np.uint8], Labels]:
        from samples.people import draw_picture

        rng = np.random.default_rng((self.seed, index))
        image, keypoints, _ = draw_picture(rng, self.size_wh, int(rng.integers(1, self.max_people + 1)))
        seen = (keypoints[..., 2] > 0).any(1)  # a person who is almost completely hidden has no keypoints
        return image, Labels(keypoints[seen], _extents(keypoints[seen]), np.ones(self.joints, bool))


def _parse(raw: dict[str, Any]) -> tuple[int, list[tuple[str, Labels]]]:
    """The number of joints, and (file name, labels) of each picture with keypoints or nobody, in the file's order."""
    people = defaultdict(list)
    for annotation in raw["annotations"]:
        people[annotation["image_id"]].append(annotation)
    joints = len(raw["categories"][0]["keypoints"])
    pictures = []
    for image in raw["images"]:
        annotations = people[image["id"]]
        posed = [a for a in annotations if a.get("num_keypoints", 0) > 0 and not a.get("iscrowd")]
        if not posed and not image.get("nobody"):
            continue
        keypoints = np.array([a["keypoints"] for a in posed], np.float32).reshape(len(posed), joints, 3)
        labelled = np.ones(joints, bool)
        labelled[[j for a in posed for j in a.get("unlabelled_keypoints", ())]] = False
        rest = [a for a in annotations if a.get("num_keypoints", 0) == 0 or a.get("iscrowd")]
        size_hw = image["height"], image["width"]
        ignore = [p for a in rest for p in _outline(a, size_hw)]
        sizes = np.sqrt([a["bbox"][2] * a["bbox"][3] for a in posed]).astype(np.float32)
        pictures.append((image["file_name"], Labels(keypoints, sizes, labelled, ignore)))
    return joints, pictures


def _extents(keypoints: NDArray[np.float32]) -> NDArray[np.float32]:
    """(P,): the root of the area of the box around each person's labelled keypoints (P, K, 3)."""
    found = keypoints[..., 2:] > 0
    low = np.where(found, keypoints[..., :2], np.inf).min(1)
    high = np.where(found, keypoints[..., :2], -np.inf).max(1)
    return np.asarray(np.sqrt((high - low).prod(1)), np.float32)


def _outline(annotation: dict[str, Any], size_hw: tuple[int, int]) -> Iterable[NDArray[np.float32]]:
    """Polygons (n, 2) around a person: the segmentation, or the box if there is none."""
    shape = annotation.get("segmentation")
    if isinstance(shape, list) and shape:
        return [np.array(polygon, np.float32).reshape(-1, 2) for polygon in shape]
    if isinstance(shape, dict):
        from pycocotools import mask as masks

        rle = masks.frPyObjects(shape, *size_hw) if isinstance(shape["counts"], list) else shape
        outlines, _ = cv2.findContours(masks.decode(rle), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        return [outline.reshape(-1, 2).astype(np.float32) for outline in outlines]
    x, y, w, h = annotation["bbox"]
    return [np.array([(x, y), (x + w, y), (x + w, y + h), (x, y + h)], np.float32)]


def _scaled(annotation: dict[str, Any], factor: float) -> dict[str, Any]:
    scaled = dict(annotation)
    keypoints = np.array(annotation.get("keypoints", ()), np.float64).reshape(-1, 3) * (factor, factor, 1)
    scaled["keypoints"] = [round(float(v), 2) for v in keypoints.ravel()]
    scaled["bbox"] = [v * factor for v in annotation["bbox"]]
    scaled["area"] = annotation.get("area", 0) * factor**2
    shape = scaled.pop("segmentation", None)
    if isinstance(shape, list):
        scaled["segmentation"] = [[round(v * factor, 1) for v in polygon] for polygon in shape]
    return scaled
