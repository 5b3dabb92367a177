"""A network that knows the answer: it draws the heatmaps and tags of given people, wherever the letterbox puts them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np

from core.spec import ModelSpec
from engine.runner import Heads
from kernels.options import DecodeOptions
from pipeline.letterbox import Letterbox
from pipeline.step import HostStep, PassOptions

SIGMA = 2.0  # cells of the heatmap
SHORT_SIDE = 128


def crowd(rng: np.random.Generator, frame_wh: tuple[int, int], joints: int = 17) -> np.ndarray:
    """(P, K, 3) x, y, v = 2 of people side by side, their joints on a loose grid."""
    w, h = frame_wh
    people = []
    for left in np.arange(0.05, 0.9, 0.3):
        column, row = np.arange(joints) % 4, np.arange(joints) // 4
        x = (left + 0.065 * column) * w + rng.uniform(0, 0.015 * w, joints)
        y = (0.1 + 0.18 * row) * h + rng.uniform(0, 0.04 * h, joints)
        people.append(np.stack([x, y, np.full(joints, 2.0)], axis=1))
    return np.array(people)


def annotate(people: Sequence[np.ndarray], frames_wh: Sequence[tuple[int, int]], suffix=".png", **image) -> dict:
    """COCO annotations of these people; image ids are 100, 101, …"""
    images: list[dict] = []
    annotations: list[dict] = []
    for index, (crowd_of_frame, (w, h)) in enumerate(zip(people, frames_wh, strict=True)):
        images.append({"id": 100 + index, "file_name": f"{100 + index:012d}{suffix}", "width": w, "height": h, **image})
        for joints in crowd_of_frame:
            (x0, y0), (x1, y1) = joints[:, :2].min(axis=0), joints[:, :2].max(axis=0)
            box = [float(x0), float(y0), float(x1 - x0), float(y1 - y0)]
            annotations.append({
                "id": len(annotations) + 1, "image_id": 100 + index, "category_id": 1, "iscrowd": 0,
                "keypoints": [float(v) for v in joints.ravel()], "num_keypoints": int((joints[:, 2] > 0).sum()),
                "bbox": box, "area": 0.53 * box[2] * box[3],
            })  # fmt: skip
    return {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "person"}]}


class OracleRunner:
    """Answers frame after frame, one call a scale. off: moves every answer by so many frame pixels."""

    engine = "oracle"
    default_scales: tuple[float, ...] = (1.0,)

    def __init__(self, people, frames_wh, *, scales=None, off: float = 0.0, joint_set="coco") -> None:
        self.spec = ModelSpec(name="oracle", joint_set=joint_set, short_side=SHORT_SIDE)
        self._frames = list(zip(people, frames_wh, strict=True))
        self._scales, self._off = scales or self.default_scales, off
        self._calls = self.closed = 0

    def infer(self, images) -> Heads:
        people, frame_wh = self._frames[self._calls // len(self._scales)]
        scale = self._scales[self._calls % len(self._scales)]
        self._calls += 1
        n, _, h, w = images.shape
        letterbox = Letterbox.with_short_side(frame_wh, SHORT_SIDE, scale=scale, min_scale=min(self._scales))
        assert letterbox.input_hw == (h, w)
        heat = np.zeros((self.spec.num_joints, h // 2, w // 2), np.float32)
        tags = np.full((self.spec.num_joints, h // 4, w // 4), -50, np.float32)
        rows, columns = np.mgrid[: h // 2, : w // 2]
        for person, joints in enumerate(people):
            for k, (x, y) in enumerate(letterbox.to_input(joints[:, :2] + self._off) / 2 - 0.5):
                bump = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * SIGMA**2)) * (0.9 - 0.1 * person)
                heat[k] = np.maximum(heat[k], bump)
                r, c = int(y / 2), int(x / 2)
                tags[k, max(0, r - 2) : r + 4, max(0, c - 2) : c + 4] = 5 * person
        if n == 1:
            return Heads(heat[None], tags[None])
        order = list(DecodeOptions().flip_for(self.spec.num_joints))
        return Heads(np.stack([heat, heat[order, :, ::-1]]), np.stack([tags, tags[order, :, ::-1]]))

    def close(self) -> None:
        self.closed += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def oracle_step(runner: OracleRunner, *, flip=False, options: DecodeOptions | None = None) -> HostStep:
    return HostStep(
        lambda shape: runner,
        runner.spec,
        PassOptions(flip=flip, decode=options or DecodeOptions()),
        engine=runner.engine,
        about="oracle",
        on_close=runner.close,
    )
