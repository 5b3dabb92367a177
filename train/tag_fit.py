"""Fits the tag layers of the model small to a frozen backbone, on features that are computed once, only at the joints.

The layers first learn each joint's offset to the mean of its person's joints, then the losses of associative embedding
(Newell et al. 2017), with distances instead of squared distances, which reduces the influence of outliers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from export.small import TAG_CHANNELS, TAG_DIMS, TAG_STRIDE, Small
from export.tiny import TINY_MEAN, TINY_STD
from train.mixture import normalise
from train.optimise import learning_rate
from train.pictures import Pictures

SIDES = (240, 440)  # range of the pictures' short sides, log-uniform
SIDE_MULTIPLE = 32
PEAK_NOISE = 0.6  # standard deviation of the simulated error of heatmap peaks, in cells
RATE, EPOCHS, PICTURES_PER_STEP = 3e-3, 40, 50
OFFSET_EPOCHS = 4  # epochs with the full weight of the offset's loss
OFFSET_WEIGHT = 0.1  # of the offset's loss afterwards
MARGIN = 0.75  # of the push, tag units
SOFT = 0.01  # added to squared distances, so that their roots have a gradient at 0


class Joints(NamedTuple):
    """Labelled joints of many pictures, one per row."""

    features: Tensor  # (n, C), of 1/4, then of 1/16
    joint: Tensor  # (n,) int64
    peak: Tensor  # (n, 2), position of a simulated heatmap peak, input pixels
    middle: Tensor  # (n, 2), the mean of the person's joints, input pixels
    person: Tensor  # (n,) int64, numbered over all pictures
    picture: Tensor  # (n,) int64


@torch.no_grad()
def read_joints(model: Small, pictures: Pictures, indices: Sequence[int], seed: int = 0) -> Joints:
    """The features at every labelled joint of these pictures, at random sizes and half of them mirrored."""
    from kernels.options import DecodeOptions

    model.eval()
    rng = np.random.default_rng(seed)
    twin = list(DecodeOptions().flip_for(pictures.joints))
    columns: list[list[NDArray[np.float32]]] = [[], [], [], []]
    numbers: list[tuple[int, int, int]] = []  # joint, person, picture
    people = 0
    for index in indices:
        image, labels = pictures.read(index)
        factor = float(np.exp(rng.uniform(*np.log(SIDES)))) / min(image.shape[:2])
        width, height = (-(-round(n * factor) // SIDE_MULTIPLE) * SIDE_MULTIPLE for n in image.shape[1::-1])
        mirrored = bool(rng.random() < 0.5)
        matrix = np.array([[-factor if mirrored else factor, 0, image.shape[1] * factor * mirrored], [0, factor, 0]])
        scaled = cv2.cvtColor(cv2.warpAffine(image, matrix, (width, height)), cv2.COLOR_BGR2RGB)
        tensor = normalise(torch.from_numpy(scaled).permute(2, 0, 1)[None], TINY_MEAN, TINY_STD)
        parts = model.backbone(tensor)
        fine, coarse = torch.cat([parts.features, parts.detail], 1)[0].numpy(), parts.context[0].numpy()
        for person in labels.keypoints:
            xy = person[:, :2] @ matrix[:, :2].T + matrix[:, 2]
            seen = (person[:, 2] > 0) & (xy >= 0).all(1) & (xy < (width, height)).all(1)
            if mirrored:
                xy, seen = xy[twin], seen[twin]
            at = xy[seen]
            cells = np.rint(at / TAG_STRIDE - 0.5 + rng.normal(0, PEAK_NOISE, at.shape))
            peak = (cells + 0.5) * TAG_STRIDE
            columns[0].append(sample(fine, cells))
            columns[1].append(sample(coarse, peak / (4 * TAG_STRIDE) - 0.5))
            columns[2].append(peak.astype(np.float32))
            columns[3].append(np.repeat(at.mean(0, keepdims=True), len(at), 0).astype(np.float32) if len(at) else at)
            numbers += [(joint, people, index) for joint in np.flatnonzero(seen).tolist()]
            people += 1
    fine_rows, coarse_rows, peaks, middles = (torch.from_numpy(np.concatenate(rows)).float() for rows in columns)
    joint, person_number, picture = torch.tensor(numbers).unbind(1)
    return Joints(torch.cat([fine_rows, coarse_rows], 1), joint, peaks, middles, person_number, picture)


def sample(maps: NDArray[np.float32], cells: NDArray[np.float64]) -> NDArray[np.float32]:
    """(n, C): the maps (C, h, w) interpolated at (n, 2), x and y in cells, as by `upsample`; clipped to the grid."""
    _, rows, columns = maps.shape
    inside = np.clip(cells, 0, (columns - 1, rows - 1))
    x, y = np.minimum(inside.astype(int), (columns - 2, rows - 2)).T
    right, down = (inside - np.column_stack([x, y])).T
    above = maps[:, y, x] * (1 - right) + maps[:, y, x + 1] * right
    below = maps[:, y + 1, x] * (1 - right) + maps[:, y + 1, x + 1] * right
    mixed: NDArray[np.float32] = (above * (1 - down) + below * down).T.astype(np.float32)
    return mixed


def fit_tags(model: Small, joints: Joints, seed: int = 0, epochs: int | None = None) -> None:
    """Fit the model's tag layers, in place. epochs: EPOCHS by default."""
    epochs = epochs or EPOCHS
    torch.manual_seed(seed)
    mean, spread = joints.features.mean(0), joints.features.std(0) + 1e-3
    features = (joints.features - mean) / spread
    hidden = nn.Linear(features.shape[1], TAG_CHANNELS)
    out = nn.Linear(TAG_CHANNELS, TAG_DIMS * model.joints)
    nn.init.zeros_(out.weight)
    nn.init.zeros_(out.bias)
    scale = nn.Parameter(model.tag_scale.detach().log())
    optimizer = torch.optim.AdamW([*hidden.parameters(), *out.parameters(), scale], lr=RATE, weight_decay=1e-3)
    numbers, starts = torch.unique_consecutive(joints.picture, return_counts=True)
    rows = torch.split(torch.arange(len(features)), starts.tolist())
    per_step = min(PICTURES_PER_STEP, len(numbers))
    for epoch in range(epochs):
        order = torch.randperm(len(numbers)).split(per_step)  # type: ignore[no-untyped-call]
        for step, chosen in enumerate(order):
            done = epoch * len(order) + step
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(done, peak=RATE, warm_up=0, steps=epochs * len(order))
            at = torch.cat([rows[number] for number in chosen.tolist()])
            x = features[at] + 0.05 * torch.randn(len(at), features.shape[1])
            offset = out(torch.relu(hidden(x))).view(len(at), TAG_DIMS, -1)[torch.arange(len(at)), :, joints.joint[at]]
            tags = joints.peak[at] * scale.exp() + offset
            pull, push = losses(tags, joints.person[at], joints.picture[at])
            offset_loss = _distance(tags - joints.middle[at] * scale.exp()).mean()
            offset_weight = 1 if epoch < OFFSET_EPOCHS else OFFSET_WEIGHT
            loss = pull + push * (epoch >= OFFSET_EPOCHS // 2) + offset_loss * offset_weight
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    _store(model, hidden, out, scale=scale, mean=mean, spread=spread)


def losses(tags: Tensor, person: Tensor, picture: Tensor) -> tuple[Tensor, Tensor]:
    """(pull, push) of tags (n, D): mean distance from the person's mean, and closeness of people in one picture."""
    people, member, counts = torch.unique(person, return_inverse=True, return_counts=True)
    means = torch.zeros(len(people), tags.shape[1]).index_add(0, member, tags) / counts[:, None]
    picture_of = torch.zeros(len(people), dtype=torch.int64).index_put((member,), picture)
    pairs = torch.triu(picture_of[:, None] == picture_of, 1)
    one, other = torch.nonzero(pairs, as_tuple=True)
    closeness = torch.exp(-(means[one] - means[other]).square().sum(1) / (2 * MARGIN**2))
    return _distance(tags - means[member]).mean(), 2 * closeness.sum() / len(people)


def _distance(difference: Tensor) -> Tensor:
    return (difference.square().sum(1) + SOFT).sqrt()


@torch.no_grad()
def _store(model: Small, hidden: nn.Linear, out: nn.Linear, *, scale: Tensor, mean: Tensor, spread: Tensor) -> None:
    """Store the fitted layers in the model's convolutions, with the normalisation of the features folded in."""
    weight = hidden.weight / spread
    fine = model.tags.detail.in_channels
    model.tags.detail.weight.copy_(weight[:, :fine, None, None])
    model.tags.context.weight.copy_(weight[:, fine:, None, None])
    assert model.tags.detail.bias is not None
    model.tags.detail.bias.copy_(hidden.bias - weight @ mean)
    last = model.final_layers[0]
    assert isinstance(last, nn.Conv2d)
    assert last.bias is not None
    last.weight.copy_(out.weight[:, :, None, None])
    last.bias.copy_(out.bias)
    model.tag_scale.copy_(scale.exp())
