"""The pipeline's data: Frame, People, Result. Frozen, and validated once when they are made."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from core.coco import CocoResult
from engine.device import Rows
from kernels.colour import Colour


class Surface(Protocol):
    """A picture in device memory as a video decoder leaves it (NV12): h rows of Y, and ceil(h / 2) rows of U and V.

    wh: width and height h. colour: how its Y, U and V become red, green and blue.
    luma, chroma: its rows; unchanged as long as this object lives. The work that writes them was put on the device's
    default stream before the object was made.
    """

    wh: tuple[int, int]
    colour: Colour
    luma: Rows
    chroma: Rows

    def to_host(self) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 BGR, C-contiguous, as if it had been decoded into host memory; from any thread.

        Copied at the first call. Raises SourceError if the device has failed.
        """
        ...


Picture = NDArray[np.uint8] | Surface  # BGR in host memory, or NV12 on the device


class Layout(NamedTuple):
    """What pictures that share a buffer have in common. colour: of Surfaces; None for BGR in host memory."""

    wh: tuple[int, int]
    colour: Colour | None

    @classmethod
    def of(cls, picture: Picture) -> Layout:
        if isinstance(picture, np.ndarray):
            return cls((picture.shape[1], picture.shape[0]), None)
        return cls(picture.wh, picture.colour)


def on_host(picture: Picture) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 BGR: the array itself, or a Surface's copy."""
    return picture if isinstance(picture, np.ndarray) else picture.to_host()


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture of a source.

    picture: (H, W, 3) uint8 BGR, upright, C-contiguous; read-only by convention, since stages share it. Or a Surface:
        such a frame occupies device memory as long as it lives, and `image` copies it to the host when first used.
    index: 0, 1, 2 … within its source; a dropped frame leaves a gap.
    time_s: presentation time from the source's start, seconds.
    captured_at: `time.monotonic()` when the picture was read.
    source: the name the user gave (path, URL or camera index as text).
    time_base: the source's unit of time in seconds, with which a sink writes `time_s` exactly; None if the source has
        none (images, cameras).
    """

    picture: Picture
    index: int = 0
    time_s: float = 0.0
    captured_at: float = 0.0
    source: str = ""
    time_base: Fraction | None = None

    def __post_init__(self) -> None:
        image = self.picture
        if hasattr(image, "to_host"):
            return
        if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            got = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
            raise ValueError(f"frame is {got}; expected a uint8 BGR array (H, W, 3)")
        if not image.size:
            raise ValueError(f"frame is empty: shape {image.shape}")

    @property
    def image(self) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 BGR in host memory, C-contiguous."""
        return on_host(self.picture)

    @property
    def wh(self) -> tuple[int, int]:
        return self.layout.wh

    @property
    def layout(self) -> Layout:
        return Layout.of(self.picture)


@dataclass(frozen=True, eq=False)
class People:
    """The people of one frame, in decode order.

    keypoints: (P, K, 2) float32, (x, y) in frame pixels, pixel centres at +0.5; (0, 0) where the score is 0.
    keypoint_scores: (P, K) float32, the heatmap value; 0 means the joint was not found.
    scores: (P,) float32, the mean over all K joints before refine.
    ids: (P,) int64, the person's number, from 1, the same in every frame of a source; 0 if no id is assigned.
        None makes them all 0.
    """

    keypoints: NDArray[np.float32]
    keypoint_scores: NDArray[np.float32]
    scores: NDArray[np.float32]
    ids: NDArray[np.int64] = None  # type: ignore[assignment]  # an array once made: callers never see None

    def __post_init__(self) -> None:
        people, joints = self.keypoint_scores.shape if self.keypoint_scores.ndim == 2 else (-1, -1)
        if self.keypoints.shape != (people, joints, 2) or self.scores.shape != (people,):
            raise ValueError(
                f"keypoints {self.keypoints.shape}, keypoint_scores {self.keypoint_scores.shape} and scores "
                f"{self.scores.shape} disagree; expected (P, K, 2), (P, K) and (P,)"
            )
        for name in ("keypoints", "keypoint_scores", "scores"):
            if getattr(self, name).dtype != np.float32:
                raise ValueError(f"{name} is {getattr(self, name).dtype}; expected float32")
        if self.ids is None:
            object.__setattr__(self, "ids", np.zeros(people, np.int64))
        if self.ids.shape != (people,) or self.ids.dtype != np.int64:
            raise ValueError(f"ids are {self.ids.dtype} {self.ids.shape}; expected int64 ({people},)")
        given = [number for number in self.ids.tolist() if number]  # few: faster than NumPy's unique
        if min(given, default=1) < 0 or len(set(given)) != len(given):
            raise ValueError(f"ids are {self.ids.tolist()}; expected positive numbers, each once, or 0 for none")

    def __len__(self) -> int:
        return len(self.scores)

    @classmethod
    def nobody(cls, joints: int = 17) -> People:
        empty = np.zeros((0, joints), np.float32)
        return cls(np.zeros((0, joints, 2), np.float32), empty, empty[:, 0])

    def pick(self, which: NDArray[np.bool_] | NDArray[np.intp]) -> People:
        """The selected people. which: a mask (P,), or indices in the wanted order."""
        return People(self.keypoints[which], self.keypoint_scores[which], self.scores[which], self.ids[which])

    def boxes(self) -> NDArray[np.float32]:
        """(P, 4) float32: x, y, width, height of each person's found joints; zeros where none was found."""
        found = self.keypoint_scores[..., None] > 0  # (P, K, 1)
        low = np.where(found, self.keypoints, np.inf).min(axis=1, initial=np.inf)
        high = np.where(found, self.keypoints, -np.inf).max(axis=1, initial=-np.inf)
        boxes = np.concatenate([low, high - low], axis=1)
        return np.where(np.isfinite(boxes), boxes, 0).astype(np.float32)

    def to_coco(self, image_id: int = 0) -> list[CocoResult]:
        """COCO results: a dict per person with image_id, category_id 1, keypoints [x, y, score, …], bbox, score."""
        triples = np.concatenate([self.keypoints, self.keypoint_scores[..., None]], axis=2)
        return [
            {
                "image_id": image_id,
                "category_id": 1,
                "keypoints": [float(v) for v in triples[p].ravel()],
                "bbox": [float(v) for v in box],
                "score": float(self.scores[p]),
            }
            for p, box in enumerate(self.boxes())
        ]


@dataclass(frozen=True, eq=False)
class Result:
    """A frame, its people, and the time that each stage took.

    timings: stage name -> milliseconds ("capture", "preprocess", "infer", "group"; "latency" from capture to result).
    """

    frame: Frame
    people: People
    timings: dict[str, float] = field(default_factory=dict)
