"""The stream of training samples: several weighted sets of pictures, in an order that depends only on the seed.

Sample number n is the same in every process and run, so that a run can be resumed at any step.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from typing import TypedDict

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from core.signals import STOP_SIGNALS
from kernels.options import DecodeOptions
from train.augment import Augmentation, crop
from train.ensemble_maps import EnsembleMaps, blend
from train.pictures import Pictures
from train.targets import SIGMA, Limits, heatmap, joint_sigmas, loss_mask, peak_heights, tag_cells


class Sample(TypedDict):
    """As described in Mixture."""

    image: NDArray[np.uint8]
    heatmaps: list[NDArray[np.float32]]
    masks: list[NDArray[np.float32]]
    cells: NDArray[np.int64]
    set: int


class Batch(TypedDict):
    """The samples of a batch, as tensors with a leading axis N."""

    image: Tensor
    heatmaps: list[Tensor]
    masks: list[Tensor]
    cells: Tensor
    set: Tensor


class Mixture(Dataset[Sample]):
    """Gives sample n, for any n >= 0.

    sets: (pictures, weight): in an epoch each picture is used `weight` times (a fraction: this share of the pictures).
    side: of the crops, pixels. short_side: of the whole picture at scale 1, by default the same.
    strides: of the heatmaps, the coarsest first; tags have the coarsest. sigma: of the Gaussians, cells; one for all
    strides, or one for each; a pair of limits instead of a number: by the person's size (targets.joint_sigmas).
    full_size: of a person whose Gaussians have the height 1, pixels of the crop; smaller people's are lower
    (targets.peak_heights); 0: all have 1.
    maps: for each set an ensemble's heatmaps or None. They have the share maps_share of the targets, the labels the
    rest; where no label is known, they alone count.

    A sample: `image` (3, side, side) uint8 RGB; `heatmaps` and `masks`, one array per stride, (K, h, w) float32;
    `cells` (max_people, K) int64; `set`, the number of its set.
    """

    def __init__(
        self,
        sets: Sequence[tuple[Pictures, float]],
        *,
        side: int,
        short_side: int | None = None,
        strides: Sequence[int] = (4, 2),
        sigma: float | Sequence[float | Limits] = SIGMA,
        full_size: float = 0.0,
        maps: Sequence[EnsembleMaps | None] = (),
        maps_share: float = 0.5,
        augmentation: Augmentation | None = None,
        max_people: int = 20,
        seed: int = 0,
    ) -> None:
        joints = {pictures.joints for pictures, _ in sets}
        if len(joints) != 1:
            raise ValueError(f"the sets label {sorted(joints)} joints; expected one number for all")
        self.sets = sets
        self.side = side
        self.short_side = short_side or side
        self.strides = strides
        self.full_size = full_size
        self.maps = tuple(maps) or (None,) * len(sets)
        self.maps_share = maps_share
        self.sigmas = _for_each(sigma, len(strides))
        self.augmentation = augmentation or Augmentation()
        self.max_people = max_people
        self.seed = seed
        self.joints = joints.pop()
        self.flip_order = DecodeOptions().flip_for(self.joints)
        self.shares = [round(weight * len(pictures)) for pictures, weight in sets]
        self.epoch_length = sum(self.shares)
        if self.epoch_length == 0:
            raise ValueError("the sets hold no picture with a positive weight")
        self._order: tuple[int, NDArray[np.int64]] | None = None

    def __getitem__(self, number: int) -> Sample:
        epoch, position = divmod(number, self.epoch_length)
        set_number, index = self._epoch(epoch)[position].tolist()
        picture, labels = self.sets[set_number][0].read(index)
        rng = np.random.default_rng((self.seed, 1, number))
        image, labels, matrix, mirrored = crop(
            picture,
            labels,
            self.side,
            short_side=self.short_side,
            flip_order=self.flip_order,
            options=self.augmentation,
            rng=rng,
        )
        known = labels.labelled[:, None, None].astype(np.float32)  # (K, 1, 1)
        heights = peak_heights(labels.sizes, self.full_size)
        heatmaps = [
            heatmap(
                labels.keypoints,
                self.side,
                stride,
                joint_sigmas(labels.sizes, self.joints, stride, limits),
                heights,
            )
            for stride, limits in zip(self.strides, self.sigmas, strict=True)
        ]
        masks = [loss_mask(labels, self.side, stride) * known for stride in self.strides]
        ensemble = self.maps[set_number]
        if ensemble is not None:
            maps = ensemble.crop(index, (picture.shape[1], picture.shape[0]), matrix, self.side, self.strides)
            if mirrored:
                maps = [one[list(self.flip_order)] for one in maps]
            blend(heatmaps, masks, maps, self.maps_share)
        return {
            "image": np.ascontiguousarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB).transpose(2, 0, 1)),
            "heatmaps": heatmaps,
            "masks": masks,
            "cells": tag_cells(labels.keypoints, self.side, self.max_people, self.strides[0]),
            "set": set_number,
        }

    def _epoch(self, epoch: int) -> NDArray[np.int64]:
        """(epoch_length, 2): set and picture of each sample of an epoch."""
        if self._order is None or self._order[0] != epoch:
            rng = np.random.default_rng((self.seed, 0, epoch))
            parts = []
            for set_number, ((pictures, _), share) in enumerate(zip(self.sets, self.shares, strict=True)):
                rounds = -(-share // len(pictures))
                drawn = np.concatenate([rng.permutation(len(pictures)) for _ in range(rounds)])[:share]
                parts.append(np.column_stack([np.full(share, set_number), drawn]))
            self._order = epoch, rng.permutation(np.concatenate(parts))
        return self._order[1]


def _for_each(sigma: float | Sequence[float | Limits], count: int) -> tuple[Limits, ...]:
    """`count` pairs of limits: those given, or the only one repeated; of a number, twice that."""
    given = tuple(sigma) if isinstance(sigma, Sequence) else (sigma,)
    if len(given) not in {1, count}:
        raise ValueError(f"sigma has {len(given)} numbers; expected one, or one for each of {count} resolutions")
    limits = tuple(one if isinstance(one, tuple) else (one, one) for one in given)
    return limits * count if len(limits) == 1 else limits


class _Numbers:
    """The numbers of the samples of each batch; made when asked for, since a timed run has no last step."""

    def __init__(self, steps: range, batch: int) -> None:
        self.steps, self.batch = steps, batch

    def __iter__(self) -> Iterator[list[int]]:
        return (list(range(step * self.batch, (step + 1) * self.batch)) for step in self.steps)

    def __len__(self) -> int:
        return len(self.steps)


def batches(mixture: Mixture, batch: int, steps: range, workers: int) -> Iterator[Batch]:
    """The batches of `steps`; batch s holds samples s * batch to (s + 1) * batch - 1, as tensors on the host."""
    loader = DataLoader(
        mixture,
        batch_sampler=_Numbers(steps, batch),
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        prefetch_factor=4 if workers else None,
        worker_init_fn=_start_worker,
        multiprocessing_context="spawn" if workers else None,  # a fork of a process with OpenMP threads hangs
    )
    return iter(loader)


def normalise(images: Tensor, mean: Sequence[float] | Tensor, std: Sequence[float] | Tensor) -> Tensor:
    """(N, 3, H, W) uint8 RGB -> float32, (pixel / 255 - mean) / std. mean, std: (3,)."""
    offset, scale = (255 * torch.as_tensor(value, device=images.device).view(1, 3, 1, 1) for value in (mean, std))
    return (images.float() - offset) / scale


def _start_worker(_: int) -> None:
    """One thread; and a terminal's signals to the process group are the parent's to answer, which ends its workers."""
    for number in STOP_SIGNALS:
        if number != signal.SIGTERM:  # by which the parent ends them
            signal.signal(number, signal.SIG_IGN)
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
