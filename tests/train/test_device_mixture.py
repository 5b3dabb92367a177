"""Crops and targets made on a device equal those of the host."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from tests.train import drawing
from train.augment import PLAIN, Augmentation, move
from train.device_crop import BLUR_REACH, blur, blur_weights, recolour, warp
from train.device_mixture import DeviceMixture, Draws, quotas
from train.device_pictures import DevicePictures
from train.mixture import Mixture
from train.pictures import Labels
from train.targets import heatmap, joint_sigmas, loss_mask, peak_heights, tag_cells

SIDE = 96


class Smooth:
    """Pictures without sharp edges, of several sizes, with random people and an ignored region each."""

    joints = 17

    def __init__(self, count: int = 5, seed: int = 0) -> None:
        self.count = count
        self.seed = seed

    def __len__(self) -> int:
        return self.count

    def read(self, index: int) -> tuple[np.ndarray, Labels]:
        rng = np.random.default_rng((self.seed, index))
        height, width = rng.integers(70, 160, 2)
        image = cv2.resize(
            rng.integers(0, 255, (6, 6, 3), np.uint8), (int(width), int(height)), interpolation=cv2.INTER_CUBIC
        )
        keypoints = rng.uniform(0, (width, height, 3), (rng.integers(1, 4), 17, 3)).astype(np.float32)
        keypoints[..., 2] = np.floor(keypoints[..., 2])
        keypoints[:, 0, 2] = 2
        keypoints[keypoints[..., 2] == 0] = 0
        labelled = rng.random(17) < 0.8
        corner = rng.uniform(0, (width / 2, height / 2))
        polygon = corner + np.array([(0, 0), (50, 5), (40, 45), (5, 40)])
        polygon = np.minimum(polygon, (width - 1, height - 1)).astype(np.float32)
        sizes = rng.uniform(20, 150, len(keypoints)).astype(np.float32)
        return image, Labels(keypoints, sizes, labelled, [polygon])


def mixture_of(*sets: tuple[Smooth, float], **options) -> Mixture:
    return Mixture(list(sets), **{"side": SIDE, "short_side": 110, "sigma": (1.3, 2.0), "strides": (4, 2), **options})


def without_colour(draws: Draws) -> Draws:
    count = len(draws.pictures)
    ones, zeros = np.ones(count), np.zeros(count)
    return Draws(draws.pictures, draws.matrices, draws.flipped, ones, np.ones((count, 3)), zeros, zeros)


def test_crops_and_targets_equal_those_of_the_host():
    pictures = Smooth(12)
    mixture = mixture_of((pictures, 1.0), full_size=110, sigma=((0.8, 1.8), 2.0))
    on_device = DeviceMixture(mixture, 24, "cpu", threads=2)
    draws = without_colour(on_device.draw(3))
    assert 0 < draws.flipped.sum() < 24
    batch = on_device.render(draws)
    for n in range(24):
        image, labels = pictures.read(int(draws.pictures[n]))
        moved = move(labels, draws.matrices[n])
        wanted = cv2.cvtColor(cv2.warpAffine(image, draws.matrices[n], (SIDE, SIDE)), cv2.COLOR_BGR2RGB)
        off = np.abs(batch["image"][n].permute(1, 2, 0).numpy().astype(int) - wanted)
        assert off.mean() < 0.5  # OpenCV rounds positions to 1/32 pixel
        assert np.percentile(off, 99.5) <= 8  # more at the picture's border only
        keypoints = moved.keypoints
        keypoints[~((keypoints[..., :2] >= 0) & (keypoints[..., :2] < SIDE)).all(-1)] = 0
        labelled = moved.labelled
        if draws.flipped[n]:
            keypoints, labelled = keypoints[:, list(mixture.flip_order)], labelled[list(mixture.flip_order)]
        seen = (keypoints[..., 2] > 0).any(1)
        keypoints, peaks = keypoints[seen], peak_heights(moved.sizes[seen], 110)
        for level, (stride, limits) in enumerate(zip(mixture.strides, ((0.8, 1.8), (2.0, 2.0)), strict=True)):
            sigma = joint_sigmas(moved.sizes[seen], 17, stride, limits)
            expected = heatmap(keypoints, SIDE, stride, sigma, peaks)
            np.testing.assert_allclose(batch["heatmaps"][level][n].numpy(), expected, atol=1e-4)
            mask = loss_mask(moved, SIDE, stride) * labelled[:, None, None]
            differ = batch["masks"][level][n].numpy() != mask
            assert differ.mean() < 0.06  # fillPoly takes the cells on the border of a region too
            inside = _core(1 - loss_mask(moved, SIDE, stride))
            assert batch["masks"][level][n].numpy()[:, inside > 0].sum() == 0
        np.testing.assert_array_equal(batch["cells"][n].numpy(), tag_cells(keypoints, SIDE, mixture.max_people))


def test_pixels_outside_the_picture_are_black_and_known():
    pictures = DevicePictures([Smooth(2)], "cpu")
    far = torch.tensor([[1.0, 0, -500], [0, 1, 0]], dtype=torch.float64)[None]
    number = [torch.tensor([int(v)]) for v in (pictures.offsets[1], *pictures.sizes_wh[1])]
    offset, width, height = number
    assert warp(pictures.pixels, offset, width, height, far, 16).abs().max() == 0


@pytest.mark.parametrize("sigma", [0.5, 0.8, 1.5])
def test_blur_equals_opencvs(sigma):
    image = np.random.default_rng(0).integers(0, 255, (40, 40, 3), np.uint8)
    weights = torch.from_numpy(blur_weights(np.array([sigma]))).float()
    assert weights.shape == (1, 2 * BLUR_REACH + 1)
    ours = blur(torch.from_numpy(image).float()[None], weights)[0].numpy()
    assert np.abs(ours - cv2.GaussianBlur(image, (0, 0), sigma)).max() <= 2


def test_colours_change_as_on_the_host():
    image = np.random.default_rng(1).integers(0, 255, (20, 20, 3), np.uint8)
    grey = np.repeat(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
    saturated = cv2.addWeighted(image, 1.4, grey, -0.4, 0)
    gain, shift = np.array([0.8, 1.1, 1.2]), -12.5
    table = np.clip((np.arange(256)[:, None] - 128) * gain + 128 + shift, 0, 255).astype(np.uint8)
    given = [torch.tensor([[1.4]]), torch.tensor([[shift]]), torch.from_numpy(gain).float()[None]]
    ours = recolour(torch.from_numpy(image).float()[None], *given)[0].numpy()
    assert np.abs(ours - cv2.LUT(saturated, table[None])).max() <= 2
    plain = [torch.ones(1, 1), torch.zeros(1, 1), torch.ones(1, 3)]
    assert np.array_equal(recolour(torch.from_numpy(image).float()[None], *plain)[0].numpy(), image)


def test_a_batch_depends_on_the_seed_and_its_number_alone():
    mixture = mixture_of((Smooth(5), 1.0), (Smooth(3, seed=1), 0.5))
    first, second = (DeviceMixture(mixture, 6, "cpu") for _ in range(2))
    one, other = list(first.batches(range(2, 5)))[2], next(second.batches(range(4, 5)))
    for name in ("image", "cells", "set"):
        assert torch.equal(one[name], other[name])
    assert one["set"].tolist() == [0, 0, 0, 0, 1, 1]
    assert not torch.equal(one["image"], next(second.batches(range(5, 6)))["image"])


def test_every_picture_of_a_set_is_used_before_one_is_repeated():
    on_device = DeviceMixture(mixture_of((Smooth(6), 1.0), (Smooth(4, seed=1), 1.0)), 5, "cpu")
    drawn = np.concatenate([on_device.draw(step).pictures for step in range(2)])
    assert sorted(drawn[drawn < 6]) == [0, 1, 2, 3, 4, 5]
    assert sorted(drawn[drawn >= 6]) == [6, 7, 8, 9]


def test_parameters_stay_in_their_ranges():
    options = Augmentation(scale=(0.8, 1.25), rotation=20.0, translation=0.0, about_person=1.0)
    on_device = DeviceMixture(mixture_of((Smooth(6), 1.0), augmentation=options), 200, "cpu")
    draws = on_device.draw(0)
    linear = draws.matrices[:, :, :2]
    scales = np.sqrt(np.abs(np.linalg.det(linear))) * on_device.pictures.sizes_wh[draws.pictures].min(1) / 110
    assert 0.8 <= scales.min() < 0.85 and 1.2 < scales.max() <= 1.25
    angles = np.rad2deg(np.arctan2(linear[:, 1, 0], linear[:, 1, 1]))
    assert -20 <= angles.min() < -18 and 18 < angles.max() <= 20
    assert np.array_equal(np.linalg.det(linear) < 0, draws.flipped)
    # Each crop's middle is the middle of somebody's keypoints.
    centres = draws.matrices @ np.append(on_device.pictures.centres[draws.pictures], np.ones((200, 3, 1)), 2).swapaxes(
        1, 2
    )
    assert np.abs(centres - SIDE / 2).max(1).min(1).max() < 1e-6
    assert 8 < (draws.blur > 0).sum() < 40
    plain = DeviceMixture(mixture_of((Smooth(6), 1.0), augmentation=PLAIN), 8, "cpu").draw(0)
    assert (
        (plain.saturation == 1).all() and (plain.gain == 1).all() and not plain.blur.any() and not plain.flipped.any()
    )


def test_each_set_has_its_share_of_a_batch():
    assert quotas([600, 300, 100], 10).tolist() == [6, 3, 1]
    assert quotas([1000, 1, 0], 8).tolist() == [7, 1, 0]
    assert quotas([1, 1, 1], 4).sum() == 4
    with pytest.raises(ValueError, match="at least one crop of each of 3"):
        quotas([1, 1, 1], 2)


def test_drawn_files_are_read_with_their_labels(tmp_path):
    from train.pictures import CocoPictures

    pictures = CocoPictures(drawing.write(tmp_path), tmp_path)
    loaded = DevicePictures([pictures, pictures], "cpu", threads=3)
    assert loaded.first.tolist() == [0, 4, 8]
    image, labels = pictures.read(2)
    pixels = loaded.pixels[int(loaded.offsets[6]) :][: image[..., 0].size].view(torch.uint8).view(*image.shape[:2], 4)
    assert np.array_equal(pixels[..., :3].numpy(), image[..., ::-1])
    assert np.array_equal(loaded.keypoints[6, : len(labels.keypoints)].numpy(), labels.keypoints)
    assert loaded.people.tolist() == [2, 1, 2, 2] * 2


def _core(covered: np.ndarray) -> np.ndarray:
    """What is covered more than two cells from the border of the region or of the map."""
    return cv2.erode(covered, np.ones((5, 5)), borderType=cv2.BORDER_CONSTANT, borderValue=0)
