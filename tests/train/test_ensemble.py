"""An ensemble's heatmaps: they are where the picture says, at every scale, mirrored or not, and mixed as asked."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from core.errors import SourceError
from core.joints import COCO
from export.checkpoint import load_checkpoint
from export.head import HigherHead
from export.model import build_model
from tests.train import drawing
from train.__main__ import main
from train.augment import Augmentation, crop
from train.device_mixture import DeviceMixture
from train.ensemble import write_maps
from train.ensemble_maps import EnsembleMaps, blend
from train.mixture import Mixture
from train.pictures import CocoPictures

SIDE, STRIDES = 128, (4, 2)
BLOB_XY = 107.0, 61.0
MEAN, STD = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)


class Reading(HigherHead):
    """Instead of a network: joint 5 is where the picture is red, joint 9 where it is green, 0.8 of it at 1/4.

    A cell's middle is at (index + 0.5) * stride pixels, as in the targets.
    """

    def __init__(self) -> None:
        nn.Module.__init__(self)

    def forward(self, images):
        outputs = []
        for stride, factor, channels in ((4, 0.8, 51), (2, 1.0, 17)):
            ramp = torch.tensor([0.5] + [1.0] * (stride - 1) + [0.5]) / stride
            kernel = torch.outer(ramp, ramp)[None, None]
            padded = nn.functional.pad(images, (0, 1, 0, 1))
            red, green = (nn.functional.conv2d(padded[:, c : c + 1], kernel, stride=stride) for c in (0, 1))
            maps = images.new_zeros(len(images), channels, *red.shape[2:])
            maps[:, 5], maps[:, 9] = factor * red[:, 0], factor * green[:, 0]
            outputs.append(maps)
        return outputs


@pytest.fixture
def blob(tmp_path) -> CocoPictures:
    """A red blob in a picture of 200 x 150 pixels, labelled as joint 5."""
    x, y = np.meshgrid(np.arange(200), np.arange(150))
    red = 200 * np.exp(-((x - BLOB_XY[0]) ** 2 + (y - BLOB_XY[1]) ** 2) / (2 * 5.0**2))
    cv2.imwrite(str(tmp_path / "blob.png"), np.stack([0 * red, 0 * red, red], 2).astype(np.uint8))
    keypoints = np.zeros((17, 3))
    keypoints[5] = *BLOB_XY, 2
    person = {"image_id": 1, "num_keypoints": 1, "iscrowd": 0, "bbox": [87, 41, 40, 40], "area": 800}
    labels = tmp_path / "blob.json"
    labels.write_text(
        json.dumps(
            {
                "images": [{"id": 1, "file_name": "blob.png", "width": 200, "height": 150}],
                "annotations": [{**person, "keypoints": keypoints.ravel().tolist()}],
                "categories": [{"keypoints": list(COCO.joints)}],
            }
        )
    )
    return CocoPictures(labels, tmp_path)


@pytest.fixture
def maps(blob, tmp_path) -> EnsembleMaps:
    out = tmp_path / "blob.maps.zip"
    write_maps(Reading(), blob, out, short_side=SIDE, mean=MEAN, std=STD, flip_order=COCO.flip, bf16=False)
    return EnsembleMaps(out, blob)


def middle(one: np.ndarray, stride: int) -> np.ndarray:
    """(x, y), pixels: the centre of mass of a map."""
    y, x = np.meshgrid(*(stride * (np.arange(n) + 0.5) for n in one.shape), indexing="ij")
    return np.asarray([(one * x).sum(), (one * y).sum()]) / float(one.sum())


@pytest.mark.parametrize("seed", range(8))
def test_the_maps_of_a_crop_lie_where_its_picture_shows(blob, maps, seed):
    picture, labels = blob.read(0)
    options = Augmentation(scale=(0.7, 1.2), translation=0.05, about_person=1, colour=0, blur=0)
    image, _, matrix, _ = crop(
        picture, labels, SIDE, short_side=SIDE, flip_order=COCO.flip, options=options, rng=np.random.default_rng(seed)
    )
    assert image[..., 2].max() > 180
    expected = matrix @ np.array([*BLOB_XY, 1.0])
    heights = []
    for one, stride in zip(maps.crop(0, (200, 150), matrix, SIDE, STRIDES), STRIDES, strict=True):
        assert one.shape == (17, SIDE // stride, SIDE // stride)
        np.testing.assert_allclose(middle(one[5], stride), expected, atol=0.35)
        heights.append(one[5].max())
        assert not np.delete(one, [5, 6], 0).any()
    assert heights[0] <= heights[1] <= 0.9 * 200 / 255


def test_left_and_right_are_those_of_the_picture(maps):
    """`Reading` sees red on both sides: the mirrored half of its joint 5 is joint 6 of the picture."""
    whole = maps.read(0).astype(int)
    assert whole[5].max() > 60
    assert abs(whole[5] - whole[6]).max() <= 16  # half from each; the blob lies differently in their cells
    assert not whole[9].any()


def test_scales_and_resolutions_have_equal_weights(blob, maps):
    """The sum over a map is the blob's, times the mean of 0.8 and 1, half for each side: blur keeps it."""
    picture, _ = blob.read(0)
    per_cell = (SIDE / 150 / 2) ** 2
    expected = picture[..., 2].sum() * per_cell * 0.9 / 2
    np.testing.assert_allclose(maps.read(0)[5].astype(float).sum(), expected, rtol=0.03)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_share_of_the_maps(share):
    rng = np.random.default_rng(0)
    target, theirs = rng.random((2, 3, 4, 4), np.float32)
    mask = (rng.random((3, 4, 4)) < 0.6).astype(np.float32)
    mixed, known = target.copy(), mask.copy()
    blend([mixed], [known], [theirs], share)
    np.testing.assert_allclose(mixed, np.where(mask > 0, share * theirs + (1 - share) * target, theirs), atol=1e-6)
    assert (known == 1).all()


def test_a_mixture_swaps_the_joints_of_mirrored_crops(blob, maps, monkeypatch):
    only_left = np.where(np.arange(17)[:, None, None] == 5, maps.read(0), 0).astype(np.uint8)
    monkeypatch.setattr(maps, "read", lambda index: only_left)
    options = Augmentation(scale=(1, 1), rotation=0, translation=0, about_person=1, flip=1, colour=0, blur=0)
    sample = Mixture([(blob, 1)], side=SIDE, augmentation=options, maps=[maps], maps_share=1.0)[0]
    for one, mask in zip(sample["heatmaps"], sample["masks"], strict=True):
        assert (mask == 1).all()
        assert one[6].max() > 0.2
        assert not one[5].any()


@pytest.mark.parametrize("share", [1.0, 0.4])
def test_crops_made_on_a_device_equal_those_of_the_host(blob, maps, tmp_path, share):
    other = CocoPictures(drawing.write(tmp_path), tmp_path)  # a set without maps
    mixture = Mixture(
        [(other, 1), (blob, 8)], side=SIDE, augmentation=Augmentation(colour=0, blur=0), maps=[None, maps],
        maps_share=share,
    )  # fmt: skip
    plain = Mixture(mixture.sets, side=SIDE, augmentation=mixture.augmentation)
    on_device, without = (DeviceMixture(one, 12, "cpu", threads=2) for one in (mixture, plain))
    draws = on_device.draw(0)
    assert draws.flipped.any()
    batch, labels_only = on_device.render(draws), without.render(draws)
    seen = 0
    for n in range(12):
        has_maps = draws.pictures[n] == len(other)
        crops = maps.crop(0, (200, 150), draws.matrices[n], SIDE, STRIDES)
        for level, theirs in enumerate(crops):
            target, mask = (labels_only[name][level][n].numpy().copy() for name in ("heatmaps", "masks"))
            if has_maps:
                blend([target], [mask], [theirs[list(COCO.flip)] if draws.flipped[n] else theirs], share)
                seen += theirs.max() > 0.2
            np.testing.assert_allclose(batch["heatmaps"][level][n], target, atol=0.02)
            np.testing.assert_array_equal(batch["masks"][level][n], mask)
    assert seen > 6


def test_without_maps_nothing_changes(blob):
    first, second = (Mixture([(blob, 1)], side=SIDE, maps=given)[3] for given in ([], [None]))
    for a, b in zip(first["heatmaps"], second["heatmaps"], strict=True):
        np.testing.assert_array_equal(a, b)
    assert isinstance(first["set"], int)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"text", "holds no heatmaps of --write-maps"), ({}, "lacks 1 pictures of .*blob.json, blob.webp among them")],
)
def test_another_file_is_refused(blob, tmp_path, content, message):
    path = tmp_path / "wrong.maps.zip"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.comment = b"128"
    with pytest.raises(SourceError, match=message):
        EnsembleMaps(path, blob)


def test_a_damaged_picture_is_refused(blob, maps, tmp_path):
    with zipfile.ZipFile(maps.path, "w") as archive:
        archive.comment = b"128"
        archive.writestr("blob.webp", b"text")
    with pytest.raises(SourceError, match=r"blob\.webp of .* holds no heatmaps"):
        EnsembleMaps(maps.path, blob).read(0)


def test_the_commands_write_maps_and_train_with_them(tmp_path, capsys):
    labels = drawing.write(tmp_path)
    torch.manual_seed(0)
    weights = tmp_path / "start.safetensors"
    train = ["--data", f"{labels},{tmp_path}", "--side", "64", "--batch", "2", "--workers", "0", "--threads", "1"]
    assert main(["--run", f"{tmp_path / 'first'}", *train, "--steps", "1", "--out", f"{weights}"]) == 0
    folder = tmp_path / "maps"
    write = ["--weights", f"{weights}", "--write-maps", f"{folder}", "--val-side", "128"]
    assert main([*write, "--data", f"{labels},{tmp_path}"]) == 0
    assert "heatmaps of 4 pictures" in capsys.readouterr().out
    assert [path.name for path in folder.iterdir()] == [f"{Path(labels).stem}.maps.zip"]
    load_checkpoint(build_model("tiny", joints=17), weights)
    command = ["--run", f"{tmp_path / 'second'}", *train, "--steps", "1", "--weights", f"{weights}"]
    losses = []
    for share, where in (("0", "--no-in-memory"), ("1", "--no-in-memory"), ("1", "--in-memory")):
        run = tmp_path / f"{share}{where}"
        given = ["--run", f"{run}", *command[2:], "--maps", f"{folder}", "--maps-share", share, where]
        assert main(given) == 0
        losses.append(json.loads((run / "metrics.jsonl").read_text().splitlines()[0])["heatmaps_4"])
    assert max(losses[1:]) < losses[0]  # its own maps are easier to learn than the labels


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--write-maps", "maps", "--data", "a.json,a"], "--write-maps needs --weights"),
        (["--run", "run", "--drawn", "2", "--maps", "none"], "none has heatmaps for none of the sets"),
        (["--run", "run", "--drawn", "2", "--maps-share", "2"], "expected a number from 0 to 1"),
    ],
)
def test_wrong_arguments_get_one_line(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    try:
        assert main(words) == 2
    except SystemExit as stop:
        assert stop.code == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


def test_a_side_that_the_scales_cannot_share_is_refused(blob, tmp_path):
    out = tmp_path / "out.maps.zip"
    with pytest.raises(ValueError, match="expected a multiple of 128"):
        write_maps(Reading(), blob, out, short_side=192, mean=MEAN, std=STD, flip_order=COCO.flip)
    assert not out.exists()
