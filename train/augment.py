"""Makes a training crop of a picture and its labels. One matrix transforms pixels, keypoints and ignored regions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from train.pictures import Labels


class Crop(NamedTuple):
    """image: (side, side, 3) BGR; its labels; matrix: (2, 3), from the picture; mirrored: joints were swapped."""

    image: NDArray[np.uint8]
    labels: Labels
    matrix: NDArray[np.float64]
    mirrored: bool


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Ranges of random transformations. Defaults follow Newell 2017 and HigherHRNet, with more crops around people.

    scale: range of the picture's short side, as a multiple of `short_side`. rotation: up to this many degrees.
    translation: of the centre, up to this share of the crop's side. about_person: probability that the crop is centred
    on a person, not on the picture. flip, colour, blur: probabilities.
    """

    scale: tuple[float, float] = (0.75, 1.5)
    rotation: float = 30.0
    translation: float = 0.15
    about_person: float = 0.5
    flip: float = 0.5
    colour: float = 0.8
    blur: float = 0.1


PLAIN = Augmentation(scale=(1, 1), rotation=0, translation=0, about_person=0, flip=0, colour=0, blur=0)


def crop(
    image: NDArray[np.uint8],
    labels: Labels,
    side: int,
    *,
    short_side: int,
    flip_order: tuple[int, ...],
    options: Augmentation,
    rng: np.random.Generator,
) -> Crop:
    """A random crop and its labels.

    Keypoints outside the crop get visibility 0; people without a keypoint are removed. Pixels outside the picture are
    black, as in the letterbox of inference. short_side: of the whole picture before `options.scale`, pixels.
    flip_order: for each joint, the joint of the other body side.
    """
    matrix, flipped = _matrix(image, labels, side, short_side, options, rng)
    image = cv2.warpAffine(image, matrix, (side, side), flags=cv2.INTER_LINEAR)  # type: ignore[assignment]
    image = _recolour(image, options, rng)
    moved = move(labels, matrix)
    keypoints = moved.keypoints
    inside = ((keypoints[..., :2] >= 0) & (keypoints[..., :2] < side)).all(-1)
    keypoints[~inside] = 0
    labelled = moved.labelled
    if flipped:
        keypoints, labelled = keypoints[:, list(flip_order)], labelled[list(flip_order)]
    seen = (keypoints[..., 2] > 0).any(1)
    inside_only = Labels(np.ascontiguousarray(keypoints[seen]), moved.sizes[seen], labelled, moved.ignore)
    return Crop(image, inside_only, matrix, flipped)


def move(labels: Labels, matrix: NDArray[np.float64]) -> Labels:
    """The labels under an affine (2, 3) matrix; keypoints without a label stay zero."""
    keypoints = labels.keypoints.copy()
    keypoints[..., :2] = (labels.keypoints[..., :2] @ matrix[:, :2].T + matrix[:, 2]) * (keypoints[..., 2:] > 0)
    ignore = [(polygon @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32) for polygon in labels.ignore]
    sizes = labels.sizes * np.float32(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))
    return Labels(keypoints, sizes, labels.labelled, ignore)


def _matrix(  # noqa: PLR0917  # private, called once
    image: NDArray[np.uint8],
    labels: Labels,
    side: int,
    short_side: int,
    options: Augmentation,
    rng: np.random.Generator,
) -> tuple[NDArray[np.float64], bool]:
    """The matrix (2, 3) from picture to crop, and whether it mirrors."""
    height, width = image.shape[:2]
    factor = short_side / min(height, width) * np.exp(rng.uniform(*np.log(options.scale)))
    angle = np.deg2rad(rng.uniform(-options.rotation, options.rotation))
    centre = np.array([width / 2, height / 2])
    if len(labels.keypoints) and rng.random() < options.about_person:
        person = labels.keypoints[rng.integers(len(labels.keypoints))]
        found = person[person[:, 2] > 0, :2]
        centre = (found.min(0) + found.max(0)) / 2
    centre = centre + rng.uniform(-options.translation, options.translation, 2) * side / factor
    mirror = -1.0 if rng.random() < options.flip else 1.0
    cos, sin = factor * np.cos(angle), factor * np.sin(angle)
    linear = np.array([[mirror * cos, -mirror * sin], [sin, cos]])
    return np.column_stack([linear, side / 2 - linear @ centre]), mirror < 0


def _recolour(image: NDArray[np.uint8], options: Augmentation, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Change brightness, contrast, colour balance and saturation at random; sometimes blur."""
    if rng.random() < options.colour:
        grey = np.repeat(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)[..., None], 3, axis=2)
        saturation = rng.uniform(0.5, 1.5)
        image = cv2.addWeighted(image, saturation, grey, 1 - saturation, 0)  # type: ignore[assignment]
        gain = rng.uniform(0.7, 1.3) * rng.uniform(0.9, 1.1, 3)  # (3,) B, G, R
        level = np.arange(256)[:, None]
        table = np.clip((level - 128) * gain + 128 + rng.uniform(-32, 32), 0, 255).astype(np.uint8)  # (256, 3)
        image = cv2.LUT(image, table[None])  # type: ignore[assignment]
    if rng.random() < options.blur:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.5, 1.5))  # type: ignore[assignment]
    return image
