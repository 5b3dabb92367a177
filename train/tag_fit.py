"""Fit small's tags to a backbone that stays as it is: a hidden layer on features read once, at the joints alone.

First each joint learns the way to the mean of its person's joints; then the losses of associative embedding take over
(Newell et al. 2017), with distances instead of their squares, so that a few hopeless joints do not rule.
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

SIDES = (240, 440)  # short sides of the pictures, drawn evenly by their logarithm
SIDE_MULTIPLE = 32
MISPLACED = 0.6  # cells by which a heatmap's peak misses its joint, standard deviation
RATE, EPOCHS, PICTURES_A_STEP = 3e-3, 40, 50
WAY_ALONE = 4  # epochs before the way to the mean becomes a reminder
REMINDER = 0.1
MARGIN = 0.75  # of the push, tag units
SOFT = 0.01  # added to squared distances: their roots have a gradient at 0


class Joints(NamedTuple):
    """Labelled joints of many pictures, one a row; where a peak of the heatmap may be."""

    features: Tensor  # (n, C), of 1/4, then of 1/16
    joint: Tensor  # (n,) int64
    place: Tensor  # (n, 2), input pixels
    middle: Tensor  # (n, 2), the mean of its person's joints
    person: Tensor  # (n,) int64, numbered through
    picture: Tensor  # (n,) int64


@torch.no_grad()
def read_joints(model: Small, pictures: Pictures, indices: Sequence[int], seed: int = 0) -> Joints:
    """The features at every labelled joint of these pictures, each at a size of its own and half of them mirrored."""
    from kernels.options import DecodeOptions

    model.eval()
    rng = np.random.default_rng(seed)
    twin = list(DecodeOptions().flip_for(pictures.joints))
    columns: list[list[NDArray[np.float32]]] = [[], [], [], []]
    whose: list[tuple[int, int, int]] = []  # joint, person, picture
    people = 0
    for index in indices:
        image, labels = pictures.read(index)
        factor = float(np.exp(rng.uniform(*np.log(SIDES)))) / min(image.shape[:2])
        width, height = (-(-round(n * factor) // SIDE_MULTIPLE) * SIDE_MULTIPLE for n in image.shape[1::-1])
        mirrored = bool(rng.random() < 0.5)
        matrix = np.array([[-factor if mirrored else factor, 0, image.shape[1] * factor * mirrored], [0, factor, 0]])
        scaled = cv2.cvtColor(cv2.warpAffine(image, matrix, (width, height)), cv2.COLOR_BGR2RGB)
        tensor = normalise(torch.from_numpy(scaled).permute(2, 0, 1)[None], TINY_MEAN, TINY_STD)
        _, features, detail, context = model.backbone(tensor)
        fine, coarse = torch.cat([features, detail], 1)[0].numpy(), context[0].numpy()
        for person in labels.keypoints:
            xy = person[:, :2] @ matrix[:, :2].T + matrix[:, 2]
            seen = (person[:, 2] > 0) & (xy >= 0).all(1) & (xy < (width, height)).all(1)
            if mirrored:
                xy, seen = xy[twin], seen[twin]
            at = xy[seen]
            cells = np.rint(at / TAG_STRIDE - 0.5 + rng.normal(0, MISPLACED, at.shape))
            place = (cells + 0.5) * TAG_STRIDE
            columns[0].append(sample(fine, cells))
            columns[1].append(sample(coarse, place / (4 * TAG_STRIDE) - 0.5))
            columns[2].append(place.astype(np.float32))
            columns[3].append(np.repeat(at.mean(0, keepdims=True), len(at), 0).astype(np.float32) if len(at) else at)
            whose += [(joint, people, index) for joint in np.flatnonzero(seen).tolist()]
            people += 1
    fine_rows, coarse_rows, places, middles = (torch.from_numpy(np.concatenate(rows)).float() for rows in columns)
    joint, person_number, picture = torch.tensor(whose).unbind(1)
    return Joints(torch.cat([fine_rows, coarse_rows], 1), joint, places, middles, person_number, picture)


def sample(maps: NDArray[np.float32], cells: NDArray[np.float64]) -> NDArray[np.float32]:
    """(n, C): maps (C, h, w) at places (n, 2), x and y in cells, as `upsample` gives them; kept inside the grid."""
    _, rows, columns = maps.shape
    inside = np.clip(cells, 0, (columns - 1, rows - 1))
    x, y = np.minimum(inside.astype(int), (columns - 2, rows - 2)).T
    right, down = (inside - np.column_stack([x, y])).T
    above = maps[:, y, x] * (1 - right) + maps[:, y, x + 1] * right
    below = maps[:, y + 1, x] * (1 - right) + maps[:, y + 1, x + 1] * right
    mixed: NDArray[np.float32] = (above * (1 - down) + below * down).T.astype(np.float32)
    return mixed


def fit_tags(model: Small, joints: Joints, seed: int = 0, epochs: int | None = None) -> None:
    """Sets the model's tags, in place. epochs: EPOCHS by default."""
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
    a_step = min(PICTURES_A_STEP, len(numbers))
    for epoch in range(epochs):
        order = torch.randperm(len(numbers)).split(a_step)  # type: ignore[no-untyped-call]
        for step, chosen in enumerate(order):
            done = epoch * len(order) + step
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(done, peak=RATE, warm_up=0, steps=epochs * len(order))
            at = torch.cat([rows[number] for number in chosen.tolist()])
            x = features[at] + 0.05 * torch.randn(len(at), features.shape[1])
            way = out(torch.relu(hidden(x))).view(len(at), TAG_DIMS, -1)[torch.arange(len(at)), :, joints.joint[at]]
            tags = joints.place[at] * scale.exp() + way
            pull, push = losses(tags, joints.person[at], joints.picture[at])
            missed = _distance(tags - joints.middle[at] * scale.exp()).mean()
            loss = pull + push * (epoch >= WAY_ALONE // 2) + missed * (1 if epoch < WAY_ALONE else REMINDER)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    _put(model, hidden, out, scale=scale, mean=mean, spread=spread)


def losses(tags: Tensor, person: Tensor, picture: Tensor) -> tuple[Tensor, Tensor]:
    """(pull, push) of tags (n, D): mean distance from the person's mean, and closeness to others of the picture."""
    people, member, counts = torch.unique(person, return_inverse=True, return_counts=True)
    means = torch.zeros(len(people), tags.shape[1]).index_add(0, member, tags) / counts[:, None]
    where = torch.zeros(len(people), dtype=torch.int64).index_put((member,), picture)
    pairs = torch.triu(where[:, None] == where, 1)
    one, other = torch.nonzero(pairs, as_tuple=True)
    closeness = torch.exp(-(means[one] - means[other]).square().sum(1) / (2 * MARGIN**2))
    return _distance(tags - means[member]).mean(), 2 * closeness.sum() / len(people)


def _distance(difference: Tensor) -> Tensor:
    return (difference.square().sum(1) + SOFT).sqrt()


@torch.no_grad()
def _put(model: Small, hidden: nn.Linear, out: nn.Linear, *, scale: Tensor, mean: Tensor, spread: Tensor) -> None:
    """Into the convolutions, the features' mean and spread folded in."""
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
