"""Small ONNX models with predictable output: they detect coloured blobs, without weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from core.spec import METADATA_KEY, ModelSpec

JOINTS = 17
TAG_SCALE = 10.0
BLOB_SIGMA = 5.0  # frame pixels


def blob_spec(**changes: Any) -> ModelSpec:
    settings: dict[str, Any] = {"name": "blobs", "short_side": 128, "mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
    return ModelSpec(**settings | changes)


def write_blob_model(
    path: Path,
    spec: ModelSpec | None = None,
    *,
    metadata: bool = True,
    outputs: tuple[str, str] = ("heatmaps", "tags"),
    joints: int = JOINTS,
    spread: int = 0,
) -> Path:
    """heatmaps: red, averaged over 2x2; tags: 10 times green, averaged over 4x4; the same for every joint.

    spread: joint k is seen `spread * (k % 3 - 1)` cells to the right and `spread * (k // 3 - 3)` below its blob.
    """
    spec = spec or blob_spec()
    element = TensorProto.FLOAT16 if spec.precision == "fp16" else TensorProto.FLOAT
    n, h, w = (1, *spec.fixed_hw) if spec.fixed_hw else ("N", "H", "W")
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Conv", ["pixels", "see_red"], [outputs[0]], strides=[2, 2], pads=[_pad(spread)] * 4),
        helper.make_node("Conv", ["pixels", "see_green"], [outputs[1]], strides=[4, 4]),
    ]
    graph = helper.make_graph(
        nodes,
        "blobs",
        [helper.make_tensor_value_info("image", element, [n, 3, h, w])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [n, joints, None, None]) for name in outputs],
        [
            numpy_helper.from_array(_red_kernels(joints, spread), "see_red"),
            numpy_helper.from_array(_green_kernels(joints), "see_green"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    if metadata:
        helper.set_model_props(model, {METADATA_KEY: spec.to_json()})
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
    return path


def blob_frame(wh: tuple[int, int], people: list[tuple[float, float, float]]) -> np.ndarray:
    """(H, W, 3) uint8 BGR. people: x, y in frame pixels (centres at +0.5), a shade of green 0..1 as tag."""
    ys, xs = np.mgrid[: wh[1], : wh[0]] + 0.5
    image = np.zeros((wh[1], wh[0], 3), np.float64)
    for x, y, shade in people:
        squared = (xs - x) ** 2 + (ys - y) ** 2
        image[..., 2] = np.maximum(image[..., 2], 255 * np.exp(-squared / (2 * BLOB_SIGMA**2)))
        image[..., 1] = np.where(squared < (4 * BLOB_SIGMA) ** 2, 255 * shade, image[..., 1])
    return image.round().astype(np.uint8)


def _pad(spread: int) -> int:
    return 2 * 3 * spread


def _red_kernels(joints: int, spread: int) -> np.ndarray:
    side = 2 + 2 * _pad(spread)
    kernels = np.zeros((joints, 3, side, side), np.float32)
    for k in range(joints):
        # a kernel that looks to the left finds the blob further to the right
        left, top = _pad(spread) - 2 * spread * (k % 3 - 1), _pad(spread) - 2 * spread * (k // 3 - 3)
        kernels[k, 0, top : top + 2, left : left + 2] = 0.25
    return kernels


def _green_kernels(joints: int) -> np.ndarray:
    kernels = np.zeros((joints, 3, 4, 4), np.float32)
    kernels[:, 1] = TAG_SCALE / 16
    return kernels
