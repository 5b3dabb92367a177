"""Initialises the tiny network from MoveNet MultiPose: the published weights, and tags fitted by least squares."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from core.errors import ModelError
from export.movenet import PUBLISHED, PUBLISHED_TOP, MoveNet
from export.tiny import STRIDE, TAG_SCALE, TINY_MEAN, TINY_STD, Tiny
from train.mixture import normalise
from train.pictures import Pictures

RIDGE = 300.0  # of the least squares
MEAN_SIDE = 30.0  # typical square root of a person's box, pixels at 1/4 of 256; errors are weighted relative to it
SIDE_MULTIPLE = 64

# Names of the published graph's layers: (our name, pattern of the kernel's name, pattern of the bias's name or None).
_NET = r".*model_1/"
LAYERS: tuple[tuple[str, str, str | None], ...] = (
    ("stem", _NET + "model/Conv1/Conv2D_weights", _NET + "model/Conv1/Conv2D_bn_offset"),
    (
        "depthwise",
        _NET + "model/expanded_conv_depthwise/depthwise_weights",
        _NET + "model/expanded_conv_depthwise/depthwise_bn_offset",
    ),
    (
        "project",
        _NET + "model/expanded_conv_project/Conv2D_weights",
        _NET + "model/expanded_conv_project/Conv2D_bn_offset",
    ),
    *(
        (
            f"blocks.{index}.{ours}",
            _NET + f"model/block_{index + 1}_{theirs}_weights",
            _NET + f"model/block_{index + 1}_{theirs}_bn_offset",
        )
        for index in range(len(PUBLISHED))
        for ours, theirs in (
            ("expand", "expand/Conv2D"),
            ("depthwise", "depthwise/depthwise"),
            ("project", "project/Conv2D"),
        )
    ),
    ("top", _NET + "model/Conv_1/Conv2D_weights", _NET + "model/Conv_1/Conv2D_bn_offset"),
    *(
        (f"lateral{stride}", _NET + f"{name}/Conv2D/ReadVariableOp", _NET + f"{name}/BiasAdd/ReadVariableOp")
        for stride, name in ((32, "conv2d"), (16, "conv2d_1"), (8, "conv2d_2"), (4, "conv2d_3"))
    ),
    *(
        layer
        for stride, name in ((16, "separable_conv2d"), (8, "separable_conv2d_1"), (4, "separable_conv2d_2"))
        for layer in (
            (f"merge{stride}.depthwise", _NET + f"{name}/separable_conv2d/ReadVariableOp", None),
            (
                f"merge{stride}.pointwise",
                _NET + f"{name}/separable_conv2d_weights",
                _NET + f"{name}/separable_conv2d_bn_offset",
            ),
        )
    ),
    ("branch.depthwise", r".*kpt_heatmap_0/[^/]+/separable_conv2d/ReadVariableOp", None),
    (
        "branch.pointwise",
        r".*kpt_heatmap_0/[^/]+/separable_conv2d/ReadVariableOp_1",
        r".*kpt_heatmap_0/separable_[^/]+/BiasAdd/ReadVariableOp",
    ),
    (
        "logits",
        r".*kpt_heatmap_0/conv2d_\d+/Conv2D/ReadVariableOp",
        r".*kpt_heatmap_0/conv2d_\d+/BiasAdd/ReadVariableOp",
    ),
)


def load_movenet(path: Path) -> MoveNet:
    """MoveNet MultiPose as published, from its TensorFlow.js graph model: `path`, a JSON, and the .bin files it names.

    Raises ModelError if it is not that network. Source: MoveNet MultiPose Lightning 1 of TensorFlow Hub, Apache-2.0.
    """
    model = MoveNet(17, PUBLISHED, PUBLISHED_TOP).eval()
    try:
        arrays = read_graph_weights(path)
        with torch.no_grad():
            for name, kernel, bias in LAYERS:
                layer = model.get_submodule(name)
                assert isinstance(layer, nn.Conv2d)
                # (h, w, in, out), or (h, w, channels, 1) for a depthwise one
                axes = (2, 3, 0, 1) if layer.groups > 1 else (3, 2, 0, 1)
                _copy(layer.weight, _named(arrays, kernel).transpose(axes))
                if layer.bias is not None:
                    assert bias is not None
                    _copy(layer.bias, _named(arrays, bias))
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{path} does not hold MoveNet MultiPose as a TensorFlow.js graph model: {error!r}") from error
    return model


def read_graph_weights(path: Path) -> dict[str, NDArray[np.float32]]:
    """The float tensors of a TensorFlow.js graph model by name, stored as float16 or float32 in its .bin files."""
    arrays = {}
    for group in json.loads(path.read_text())["weightsManifest"]:
        data = b"".join((path.parent / part).read_bytes() for part in group["paths"])
        offset = 0
        for entry in group["weights"]:
            stored = np.dtype(entry.get("quantization", {}).get("dtype", entry["dtype"]))
            count = int(np.prod(entry["shape"], dtype=np.int64))
            values = np.frombuffer(data, stored, count, offset).reshape(entry["shape"])
            offset += values.nbytes
            if entry["dtype"] == "float32":
                arrays[entry["name"]] = values.astype(np.float32)
    return arrays


@torch.no_grad()
def fit_tags(model: Tiny, pictures: Pictures, side: int, indices: Sequence[int]) -> None:
    """Fit the tag layer, in place, so that the tags of a person's joints encode the mean of its keypoints.

    Ridge regression for each joint, from the features at 1/16 to the offset to the mean of the person's keypoints, both
    axes projected to one by TAG_SCALE. The pictures are scaled to a short side of `side`.
    """
    model.eval()
    rows: list[list[NDArray[np.float64]]] = [[] for _ in range(model.joints)]
    for index in indices:
        image, labels = pictures.read(index)
        factor = side / min(image.shape[:2])
        size_wh = tuple(-(-round(n * factor) // SIDE_MULTIPLE) * SIDE_MULTIPLE for n in image.shape[1::-1])
        matrix = np.array([[factor, 0, 0], [0, factor, 0]])
        scaled = cv2.cvtColor(cv2.warpAffine(image, matrix, size_wh), cv2.COLOR_BGR2RGB)
        tensor = normalise(torch.from_numpy(scaled).permute(2, 0, 1)[None], TINY_MEAN, TINY_STD)
        features = model.backbone(tensor).context[0].numpy()  # (C, h, w)
        for person in labels.keypoints:
            found = person[:, 2] > 0
            at = person[:, :2].astype(np.float64) * factor
            middle = at[found].mean(0)
            size = max(12.0, float(np.sqrt(np.ptp(at[found], axis=0).prod())))
            for joint in np.flatnonzero(found).tolist():
                values, place = _interpolate(features, at[joint])
                rows[joint].append(np.concatenate([values, [1.0], middle - place, [MEAN_SIDE / size]]))
    for joint, members in enumerate(rows):
        if members:
            _set_tag(model, joint, np.array(members))


def _set_tag(model: Tiny, joint: int, rows: NDArray[np.float64]) -> None:
    inputs, offset, weight = rows[:, :-3], rows[:, -3:-1], rows[:, -1:]
    gram = inputs.T @ (inputs * weight) + RIDGE * np.eye(inputs.shape[1])
    solution = np.linalg.solve(gram, inputs.T @ (offset * weight)) @ np.array(TAG_SCALE)  # (C + 1,)
    model.tags.weight[joint, :, 0, 0] = torch.from_numpy(solution[:-1]).float()
    bias = solution[-1] + STRIDE / 2 * sum(TAG_SCALE)  # the ramp counts cells, whose centres are half a cell further
    model.tags.bias[joint] = float(bias)  # type: ignore[index]  # it has a bias: Conv2d(bias=True)


def _interpolate(
    features: NDArray[np.float32], at: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The features at (x, y) in pixels, interpolated as the network up-samples them, and this point clipped to the
    grid."""
    _, rows, columns = features.shape
    cell = np.clip(at / STRIDE - 0.5, 0, (columns - 1, rows - 1))
    x, y = np.minimum(cell.astype(int), (columns - 2, rows - 2))
    right, down = cell - (x, y)
    above = features[:, y, x] * (1 - right) + features[:, y, x + 1] * right
    below = features[:, y + 1, x] * (1 - right) + features[:, y + 1, x + 1] * right
    return above * (1 - down) + below * down, (cell + 0.5) * STRIDE


def _named(arrays: dict[str, NDArray[np.float32]], pattern: str) -> NDArray[np.float32]:
    found = [name for name in arrays if re.fullmatch(pattern, name)]
    if len(found) != 1:
        raise KeyError(f"{len(found)} tensors are named like {pattern}; expected one")
    return arrays[found[0]]


def _copy(parameter: torch.Tensor, values: NDArray[np.float32]) -> None:
    if parameter.shape != values.shape:
        raise ValueError(f"a tensor is {values.shape}; expected {tuple(parameter.shape)}")
    parameter.copy_(torch.from_numpy(np.ascontiguousarray(values)))
