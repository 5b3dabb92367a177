"""Start the tiny network from PoseNet: its backbone, its heatmap and offset heads, and tags fitted by least squares."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from engine.errors import ModelError
from export.tiny import OFFSET_UNIT, STRIDE, TAG_SCALE, TINY_MEAN, TINY_STD, Tiny
from train.mixture import normalise
from train.pictures import Pictures

RIDGE = 300.0  # of the least squares; 3000 was a little worse on validation, 0 much
USUAL_SIDE = 30.0  # square root of a person's box, pixels at 1/4 of PoseNet's size: errors count relative to it


def load_posenet(model: Tiny, weights: Path) -> None:
    """Copies a .npz of PoseNet's MobileNetV1 x0.75 (`Conv2d_0.weight` … `offset_2.bias`) into the network.

    Of the coarse outputs the logits and offsets are set, the tags are not. What the head adds starts at zero.
    Source: google-coral/project-posenet, Apache-2.0; Papandreou et al. 2018.
    """
    joints = model.joints
    try:
        with np.load(weights) as arrays:
            layers = {name: torch.from_numpy(arrays[name].astype(np.float32)) for name in arrays.files}
        backbone = model.backbone
        with torch.no_grad():
            _copy(backbone.stem, layers, "Conv2d_0")
            for index, (depthwise, pointwise) in enumerate(zip(backbone.depthwise, backbone.pointwise, strict=True)):
                _copy(depthwise, layers, f"Conv2d_{index + 1}_depthwise")
                _copy(pointwise, layers, f"Conv2d_{index + 1}_pointwise")
            weight, bias = model.coarse.weight, model.coarse.bias
            weight[:joints] = layers["heatmap_2.weight"]
            weight[joints : 3 * joints] = layers["offset_2.weight"] / OFFSET_UNIT
            bias[:joints] = layers["heatmap_2.bias"]  # type: ignore[index]  # a bias is there: Conv2d(bias=True)
            # + 0.5: our cell is centred on pixel 7.5 of its 16, the kernels on 8.
            bias[joints : 3 * joints] = (layers["offset_2.bias"] + 0.5) / OFFSET_UNIT  # type: ignore[index]
    except (OSError, KeyError, ValueError, RuntimeError) as error:
        raise ModelError(
            f"{weights} does not hold PoseNet MobileNetV1 x0.75 with {joints} joints: {error!r}"
        ) from error
    for parameter in model.final_layers.parameters():
        nn.init.zeros_(parameter)


@torch.no_grad()
def fit_tags(model: Tiny, pictures: Pictures, side: int, indices: Sequence[int]) -> None:
    """Sets the tag read-out so that each joint's tag tells where its person's middle is, as well as a linear map can.

    Ridge regression, one a joint, from the features at 1/16 to the way to the mean of the person's keypoints, both
    axes, then projected by TAG_SCALE. The pictures are scaled to a short side of `side`.
    """
    model.eval()
    rows: list[list[NDArray[np.float64]]] = [[] for _ in range(model.joints)]
    for index in indices:
        image, labels = pictures.read(index)
        factor = side / min(image.shape[:2])
        size_wh = tuple(-(-round(n * factor) // STRIDE) * STRIDE for n in image.shape[1::-1])
        matrix = np.array([[factor, 0, 0], [0, factor, 0]])
        scaled = cv2.cvtColor(cv2.warpAffine(image, matrix, size_wh), cv2.COLOR_BGR2RGB)
        tensor = normalise(torch.from_numpy(scaled).permute(2, 0, 1)[None], TINY_MEAN, TINY_STD)
        features = model.backbone(tensor)[-1][0].numpy()  # (C, h, w)
        for person in labels.keypoints:
            found = person[:, 2] > 0
            at = person[:, :2].astype(np.float64) * factor
            middle = at[found].mean(0)
            size = max(12.0, float(np.sqrt(np.ptp(at[found], axis=0).prod())))
            for joint in np.flatnonzero(found).tolist():
                values, place = _interpolate(features, at[joint])
                rows[joint].append(np.concatenate([values, [1.0], middle - place, [USUAL_SIDE / size]]))
    for joint, members in enumerate(rows):
        if members:
            _set_tag(model, joint, np.array(members))


def _set_tag(model: Tiny, joint: int, rows: NDArray[np.float64]) -> None:
    inputs, way, weight = rows[:, :-3], rows[:, -3:-1], rows[:, -1:]
    gram = inputs.T @ (inputs * weight) + RIDGE * np.eye(inputs.shape[1])
    solution = np.linalg.solve(gram, inputs.T @ (way * weight)) @ np.array(TAG_SCALE)  # (C + 1,)
    row = 3 * model.joints + joint
    model.coarse.weight[row, :, 0, 0] = torch.from_numpy(solution[:-1]).float()
    bias = solution[-1] + STRIDE / 2 * sum(TAG_SCALE)  # the ramp counts cells, whose centres lie half a cell further
    model.coarse.bias[row] = float(bias)  # type: ignore[index]


def _interpolate(
    features: NDArray[np.float32], at: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Features at a place (x, y) in pixels, as the network up-samples them, and that place, kept inside the grid."""
    _, rows, columns = features.shape
    cell = np.clip(at / STRIDE - 0.5, 0, (columns - 1, rows - 1))
    x, y = np.minimum(cell.astype(int), (columns - 2, rows - 2))
    right, down = cell - (x, y)
    above = features[:, y, x] * (1 - right) + features[:, y, x + 1] * right
    below = features[:, y + 1, x] * (1 - right) + features[:, y + 1, x + 1] * right
    return above * (1 - down) + below * down, (cell + 0.5) * STRIDE


def _copy(layer: Any, layers: dict[str, torch.Tensor], name: str) -> None:
    layer.weight.copy_(layers[f"{name}.weight"])
    layer.bias.copy_(layers[f"{name}.bias"])
