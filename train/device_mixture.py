"""A mixture whose pictures lie in a device's memory: a batch's crops and targets are made there, all at once.

The random parameters are drawn on the host, for a whole batch, and depend on the seed and the batch's number alone.
They have the same distributions as those of augment.py, but are not the same numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from train.augment import Augmentation
from train.device_crop import blur, blur_weights, move, recolour, warp
from train.device_maps import DeviceMaps, warp_maps
from train.device_pictures import DevicePictures
from train.device_targets import heatmaps, joint_sigmas, peak_heights, tag_cells
from train.mixture import Batch, Mixture


@dataclass(frozen=True, eq=False)
class Draws:
    """The random parameters of the N crops of a batch.

    pictures: (N,) int64, numbers in DevicePictures. matrices: (N, 2, 3), from picture to crop. flipped: (N,) bool.
    saturation: (N,), gain: (N, 3), shift: (N,), of the colours; 1, 1 and 0 leave them. blur: (N,), sigma in pixels, 0
    for none. All but the first and `flipped` are float64.
    """

    pictures: NDArray[np.int64]
    matrices: NDArray[np.float64]
    flipped: NDArray[np.bool_]
    saturation: NDArray[np.float64]
    gain: NDArray[np.float64]
    shift: NDArray[np.float64]
    blur: NDArray[np.float64]


class DeviceMixture:
    """Gives batch s, for any s >= 0, of the sets of `mixture`, with its options.

    Each batch has the same number of crops of each set, proportional to the set's share of an epoch, and at least one;
    the sets follow one another in the mixture's order. Raises ValueError if a batch is smaller than the number of sets.
    threads: that decode, by default one per CPU.
    """

    def __init__(self, mixture: Mixture, batch: int, device: str | torch.device, threads: int = 0) -> None:
        self.mixture = mixture
        self.device = torch.device(device)
        self.pictures = DevicePictures([pictures for pictures, _ in mixture.sets], device, threads)
        self.maps: DeviceMaps | None = None
        if any(mixture.maps):
            counts = [len(pictures) for pictures, _ in mixture.sets]
            self.maps = DeviceMaps(mixture.maps, counts, self.pictures.sizes_wh, device, threads)
        self.quotas = quotas(mixture.shares, batch)
        self.sets = torch.from_numpy(np.repeat(np.arange(len(self.quotas)), self.quotas))  # stays on the host
        self._flip_order = torch.tensor(mixture.flip_order, device=self.device)
        self._permutation = lru_cache(maxsize=4 * len(self.quotas))(self._permute)

    @property
    def joints(self) -> int:
        return self.mixture.joints

    @property
    def strides(self) -> Sequence[int]:
        return self.mixture.strides

    def batches(self, steps: range) -> Iterator[Batch]:
        """The batches of these numbers, as Batch describes, on the device; `set` alone is on the host."""
        return (self.render(self.draw(step)) for step in steps)

    def draw(self, step: int) -> Draws:
        """The random parameters of batch `step`."""
        options, side = self.mixture.augmentation, self.mixture.side
        rng = np.random.default_rng((self.mixture.seed, 2, step))
        numbers = np.concatenate([self._numbers(s, step) for s in range(len(self.quotas))])
        count = len(numbers)
        matrices, flipped = self._matrices(numbers, options, side, rng)
        recoloured = rng.random(count) < options.colour
        saturation = np.where(recoloured, rng.uniform(0.5, 1.5, count), 1.0)
        gain = np.where(recoloured, rng.uniform(0.7, 1.3, count), 1.0)[:, None]
        gain = gain * np.where(recoloured[:, None], rng.uniform(0.9, 1.1, (count, 3)), 1.0)
        shift = np.where(recoloured, rng.uniform(-32, 32, count), 0.0)
        blur = np.where(rng.random(count) < options.blur, rng.uniform(0.5, 1.5, count), 0.0)
        return Draws(numbers, matrices, flipped, saturation, gain, shift, blur)

    def render(self, draws: Draws) -> Batch:
        """The crops and targets of these parameters."""
        mixture, pictures = self.mixture, self.pictures
        chosen = draws.pictures
        count = len(chosen)
        table = np.concatenate(
            [
                _inverse(draws.matrices).reshape(count, 6),
                draws.matrices.reshape(count, 6),
                np.stack([pictures.offsets[chosen], *pictures.sizes_wh[chosen].T, chosen, draws.flipped], 1),
                np.stack([draws.saturation, draws.shift], 1),
                draws.gain,
            ],
            axis=1,
        )  # float64 holds the offsets exactly; one copy to the device
        on_device = self._send(table)
        inverse, matrices = on_device[:, :6].view(count, 2, 3), on_device[:, 6:12].view(count, 2, 3)
        offsets, widths, heights, numbers, flipped = (on_device[:, 12 + i].long() for i in range(5))
        warped = warp(pictures.pixels, offsets, widths, heights, inverse, mixture.side)  # (N, side, side, 4)
        images = recolour(
            warped[..., :3], *(on_device[:, start:end].float() for start, end in ((17, 18), (18, 19), (19, 22)))
        )
        images = self._blur(images, draws.blur)

        most = max(1, int(pictures.people[chosen].max()))
        keypoints = move(pictures.keypoints[numbers, :most].double(), matrices, mixture.side)
        labelled = pictures.labelled[numbers]
        scales = matrices[:, :, 0].square().sum(1).sqrt()  # the matrices turn, mirror and scale, alike in x and y
        sizes = pictures.sizes[numbers, :most] * scales[:, None].float()
        mirrored = flipped[:, None] > 0
        keypoints = torch.where(mirrored[..., None, None], keypoints[:, :, self._flip_order], keypoints)
        labelled = torch.where(mirrored, labelled[:, self._flip_order], labelled)
        known = labelled[..., None, None].float()  # (N, K, 1, 1)
        batch = Batch(
            image=images.to(torch.uint8).permute(0, 3, 1, 2),
            heatmaps=self._heatmaps(keypoints, sizes, pictures.people[chosen]),
            masks=[
                (warped[:, None, stride // 2 :: stride, stride // 2 :: stride, 3] < 127.5).float() * known
                for stride in mixture.strides
            ],
            cells=tag_cells(keypoints, mixture.side, mixture.max_people, mixture.strides[0]),
            set=self.sets,
        )
        self._blend_maps(batch, draws)
        return batch

    def _heatmaps(self, keypoints: Tensor, sizes: Tensor, people: NDArray[np.int64]) -> list[Tensor]:
        """The targets at each resolution. keypoints: (N, P, K, 3); sizes: (N, P), pixels; people: (N,), on the host."""
        mixture = self.mixture
        order = np.argsort(-people, kind="stable")
        first, back = self._send(np.stack([order, np.argsort(order)])).unbind(0)
        keypoints, sizes = keypoints[first], sizes[first]
        peaks = peak_heights(sizes, mixture.full_size)
        counts = (people[:, None] > np.arange(keypoints.shape[1])).sum(0).tolist()
        maps = []
        for stride, limits in zip(mixture.strides, mixture.sigmas, strict=True):
            sigmas = joint_sigmas(sizes, mixture.joints, stride, limits)
            maps.append(heatmaps(keypoints, mixture.side, stride, sigmas, heights=peaks, counts=counts)[back])
        return maps

    def _blend_maps(self, batch: Batch, draws: Draws) -> None:
        """Mix the ensemble's maps into the targets of the crops that have some, as ensemble_maps.blend."""
        if self.maps is None:
            return
        rows = np.flatnonzero(self.maps.known[draws.pictures])
        if len(rows) == 0:
            return
        chosen, finest = draws.pictures[rows], min(self.strides)
        places = self.maps.places(chosen, _inverse(draws.matrices[rows]), finest)
        shapes = np.column_stack([self.maps.offsets[chosen], self.maps.sizes_wh[chosen], draws.flipped[rows], rows])
        offsets, widths, heights, flipped, at = self._send(shapes.astype(np.int64)).unbind(1)
        cells = self.mixture.side // finest
        maps = warp_maps(self.maps.values, offsets, widths, heights, self._send(places), cells)
        maps = torch.where(flipped[:, None, None, None] > 0, maps[:, self._flip_order], maps)
        for stride, targets, masks in zip(self.strides, batch["heatmaps"], batch["masks"], strict=True):
            theirs = torch.nn.functional.avg_pool2d(maps, stride // finest) if stride > finest else maps
            kept = (1 - self.mixture.maps_share) * masks[at]
            targets[at] = theirs + kept * (targets[at] - theirs)
            masks[at] = 1.0

    def _numbers(self, which: int, step: int) -> NDArray[np.int64]:
        """The pictures of one set in batch `step`: a permutation of the set, then another, and so on."""
        length = len(self.mixture.sets[which][0])
        positions = np.arange(step * self.quotas[which], (step + 1) * self.quotas[which])
        epochs, places = np.divmod(positions, length)
        return np.array(
            [
                self.pictures.first[which] + self._permutation(which, epoch)[place]
                for epoch, place in zip(epochs.tolist(), places.tolist(), strict=True)
            ],
            np.int64,
        )

    def _permute(self, which: int, epoch: int) -> NDArray[np.int64]:
        return np.random.default_rng((self.mixture.seed, 3, which, epoch)).permutation(len(self.mixture.sets[which][0]))

    def _matrices(
        self, numbers: NDArray[np.int64], options: Augmentation, side: int, rng: np.random.Generator
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """(N, 2, 3) from picture to crop, and which of them mirror; as augment.py draws them."""
        count = len(numbers)
        sizes_wh, people = self.pictures.sizes_wh[numbers], self.pictures.people[numbers]
        factor = (
            self.mixture.short_side
            / sizes_wh.min(1)
            * np.exp(rng.uniform(np.log(options.scale[0]), np.log(options.scale[1]), count))
        )
        angle = np.deg2rad(rng.uniform(-options.rotation, options.rotation, count))
        person = (rng.random(count) * people).astype(np.int64)
        about = (rng.random(count) < options.about_person) & (people > 0)
        centre = np.where(about[:, None], self.pictures.centres[numbers, person], sizes_wh / 2)
        centre = centre + rng.uniform(-options.translation, options.translation, (count, 2)) * side / factor[:, None]
        flipped = rng.random(count) < options.flip
        mirror = np.where(flipped, -1.0, 1.0)
        cos, sin = factor * np.cos(angle), factor * np.sin(angle)
        linear = np.stack([mirror * cos, -mirror * sin, sin, cos], 1).reshape(count, 2, 2)
        shift = side / 2 - linear @ centre[..., None]
        return np.concatenate([linear, shift], 2), flipped

    def _blur(self, images: Tensor, sigmas: NDArray[np.float64]) -> Tensor:
        """The images (N, side, side, 3), those with a sigma blurred."""
        rows = np.flatnonzero(sigmas)
        if len(rows) == 0:
            return images
        chosen = self._send(rows)
        images[chosen] = blur(images[chosen], self._send(blur_weights(sigmas[rows])).float())
        return images

    def _send(self, array: NDArray[np.float64] | NDArray[np.int64]) -> Tensor:
        """A copy on the device, without waiting for it."""
        tensor = torch.from_numpy(array)
        if self.device.type != "cuda":
            return tensor.to(self.device)
        return tensor.pin_memory().to(self.device, non_blocking=True)


def quotas(shares: Sequence[int], batch: int) -> NDArray[np.int64]:
    """How many of `batch` crops each set gives: by share, at least one where the share is positive."""
    wanted = np.array(shares, np.float64)
    if batch < np.count_nonzero(wanted):
        raise ValueError(f"batch is {batch}; expected at least one crop of each of {np.count_nonzero(wanted)} sets")
    exact = batch * wanted / wanted.sum()
    given = np.where(wanted > 0, np.maximum(1, np.floor(exact)), 0).astype(np.int64)
    while given.sum() != batch:  # the largest remainders are rounded up; or the largest excess is taken back
        short = given.sum() < batch
        lack = np.where(wanted > 0, exact - given, -np.inf) if short else np.where(given > 1, exact - given, np.inf)
        given[lack.argmax() if short else lack.argmin()] += 1 if short else -1
    return given


def _inverse(matrices: NDArray[np.float64]) -> NDArray[np.float64]:
    """The inverses of affine matrices (N, 2, 3)."""
    linear = np.linalg.inv(matrices[:, :, :2])
    return np.concatenate([linear, -linear @ matrices[:, :, 2:]], 2)
