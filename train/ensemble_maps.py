"""Heatmaps of an ensemble as training targets: reading those that train/ensemble.py wrote, and their crops."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from core.errors import SourceError
from pipeline.letterbox import Letterbox
from train.pictures import CocoPictures

SCALES = (0.5, 1.0, 1.5)  # of the ensemble
STRIDE = 2  # of the maps, pixels of the network's input at scale 1
ENDING = ".maps.zip"


def letterbox_of(frame_wh: tuple[int, int], short_side: int, scale: float = 1.0) -> Letterbox:
    """The letterbox of one of the scales. The sides are multiples of 64 at the smallest, so that all show the same."""
    return Letterbox.with_short_side(frame_wh, short_side, scale=scale, min_scale=SCALES[0])


def from_picture(box: Letterbox) -> tuple[float, NDArray[np.float64]]:
    """Scale and shift (2,) from a picture's pixels to the cells of its maps, counted from the middle of the first."""
    return box.scale / STRIDE, box.to_input(np.zeros(2)) / STRIDE - 0.5


def from_crop(
    to_picture: NDArray[np.float64], stride: int, scale: float | NDArray[np.float64], shift: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(..., 2, 3): from the cells of a crop, of `stride` pixels, to those of its picture's maps.

    to_picture: (..., 2, 3), from the crop's pixels. scale: (...) and shift: (..., 2), see `from_picture`.
    """
    linear, factor = to_picture[..., :2], np.asarray(scale)[..., None]
    middle = linear.sum(-1) * (stride / 2) + to_picture[..., 2]  # of the crop's first cell
    return np.concatenate([linear * stride * factor[..., None], (middle * factor + shift)[..., None]], -1)


class EnsembleMaps:
    """The maps that `write_maps` wrote for some pictures. Raises SourceError, with the path, for another file.

    short_side: of the network's input at scale 1, for which they were made.
    """

    def __init__(self, path: Path, pictures: CocoPictures) -> None:
        self.path, self.pictures = path, pictures
        try:
            with zipfile.ZipFile(path) as archive:
                self.short_side = int(archive.comment)
                missing = {entry_of(pictures, i) for i in range(len(pictures))} - set(archive.namelist())
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            raise SourceError(f"{path} holds no heatmaps of --write-maps: {error!r}") from error
        if missing:
            raise SourceError(f"{path} lacks {len(missing)} pictures of {pictures.path}, {min(missing)} among them")
        self._archive: zipfile.ZipFile | None = None

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_archive": None}  # an open file cannot be pickled

    def read(self, index: int) -> NDArray[np.uint8]:
        """(K, h, w), 255 for 1, of a whole picture."""
        if self._archive is None:
            self._archive = zipfile.ZipFile(self.path)
        data = np.frombuffer(self._archive.read(entry_of(self.pictures, index)), np.uint8)
        stacked = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)
        if stacked is None or len(stacked) % self.pictures.joints:
            raise SourceError(f"{entry_of(self.pictures, index)} of {self.path} holds no heatmaps")
        return stacked.reshape(self.pictures.joints, -1, stacked.shape[1])  # type: ignore[return-value]

    def crop(
        self, index: int, frame_wh: tuple[int, int], matrix: NDArray[np.float64], side: int, strides: Sequence[int]
    ) -> list[NDArray[np.float32]]:
        """(K, side / stride, side / stride) for each stride, 0 outside the picture.

        frame_wh: of the picture. matrix: (2, 3), from its pixels to those of the crop. Joints are not swapped.
        """
        finest = min(strides)
        scale, shift = from_picture(letterbox_of(frame_wh, self.short_side))
        inverse = from_crop(np.asarray(cv2.invertAffineTransform(matrix), np.float64), finest, scale, shift)
        cells = side // finest
        finest_maps = np.stack(
            [
                cv2.warpAffine(one, inverse, (cells, cells), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
                for one in self.read(index)
            ]
        ).astype(np.float32) * np.float32(1 / 255)
        return [_reduced(finest_maps, stride // finest) for stride in strides]


def blend(
    targets: Sequence[NDArray[np.float32]],
    masks: Sequence[NDArray[np.float32]],
    maps: Sequence[NDArray[np.float32]],
    share: float,
) -> None:
    """Mix the maps into the labels' targets, in place, with this share; where no label is known, they alone count.

    targets, maps: (K, h, w) for each resolution; masks: (K, h, w), which become 1.
    """
    for target, mask, theirs in zip(targets, masks, maps, strict=True):
        target[:] = theirs + (1 - share) * mask * (target - theirs)
        mask[:] = 1


def _reduced(maps: NDArray[np.float32], factor: int) -> NDArray[np.float32]:
    """The mean of factor x factor cells."""
    joints, h, w = maps.shape
    return np.asarray(maps.reshape(joints, h // factor, factor, w // factor, factor).mean((2, 4)), np.float32)


def entry_of(pictures: CocoPictures, index: int) -> str:
    return f"{Path(pictures.name(index)).with_suffix('')}.webp"
