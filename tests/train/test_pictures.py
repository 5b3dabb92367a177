"""Labels from COCO files, folders and packs."""

from __future__ import annotations

import gzip
import json
import pickle

import cv2
import numpy as np
import pytest

from core.errors import SourceError
from samples.make_crowd import draw_frames
from tests.train import drawing
from train.augment import move
from train.mixture import Mixture
from train.pictures import CocoPictures, DrawnPictures, pack
from train.scenes import write_scenes


@pytest.fixture
def labels(tmp_path):
    return drawing.write(tmp_path)


def change(labels, edit):
    raw = json.loads(labels.read_text())
    edit(raw)
    labels.write_text(json.dumps(raw))


def test_pictures_come_with_their_people(labels):
    pictures = CocoPictures(labels, labels.parent)
    assert (len(pictures), pictures.joints) == (4, 17)
    image, known = pictures.read(2)
    expected_image, expected = drawing.draw(2)
    np.testing.assert_array_equal(image, expected_image)
    np.testing.assert_allclose(known.keypoints, expected, atol=1e-4)
    assert known.labelled.all() and not len(known.ignore)


def test_labels_may_be_compressed_and_their_third_value_a_score(labels):
    """In labels from a network, a person of low confidence has a box and no keypoints."""

    def edit(raw):
        for annotation in raw["annotations"]:
            annotation["keypoints"][2::3] = [0.35] * 16 + [0]
        raw["annotations"][0] |= {"num_keypoints": 0, "keypoints": [0] * 51, "ignore": 1}

    change(labels, edit)
    packed = labels.with_name("labels.json.gz")
    packed.write_bytes(gzip.compress(labels.read_bytes()))
    _, known = CocoPictures(packed, labels.parent).read(0)
    assert (known.keypoints.shape, len(known.ignore)) == ((1, 17, 3), 1)
    assert (known.keypoints[0, :, 2] > 0).tolist() == [True] * 16 + [False]


def test_crowds_and_people_without_keypoints_are_ignored_regions(labels):
    def edit(raw):
        box = {"image_id": 1, "category_id": 1, "keypoints": [0] * 51, "num_keypoints": 0, "area": 100}
        outline = [[1, 2, 9, 2, 9, 8]]
        crowd = {"size": [128, 128], "counts": [128 * 10, 128 * 5, 128 * 113]}  # columns 10 to 14
        raw["annotations"] += [
            box | {"id": 91, "bbox": [10, 20, 30, 40], "iscrowd": 0},
            box | {"id": 92, "bbox": [1, 2, 8, 6], "iscrowd": 0, "segmentation": outline},
            box | {"id": 93, "bbox": [10, 0, 5, 128], "iscrowd": 1, "segmentation": crowd},
        ]  # fmt: skip

    change(labels, edit)
    _, known = CocoPictures(labels, labels.parent).read(0)
    assert len(known.keypoints) == 2
    box, outline, crowd = known.ignore
    assert box.tolist() == [[10, 20], [40, 20], [40, 60], [10, 60]]
    assert outline.tolist() == [[1, 2], [9, 2], [9, 8]]
    assert (crowd.min(0).tolist(), crowd.max(0).tolist()) == ([10, 0], [14, 127])


def test_pictures_without_keypoints_are_left_out(labels):
    change(labels, lambda raw: [a.update(num_keypoints=0) for a in raw["annotations"] if a["image_id"] == 2])
    pictures = CocoPictures(labels, labels.parent)
    assert [pictures.name(i) for i in range(len(pictures))] == ["0.png", "2.png", "3.png"]


def test_a_picture_that_surely_shows_nobody_is_kept(labels, tmp_path):
    def edit(raw):
        raw["images"][1]["nobody"] = True
        raw["annotations"] = [a for a in raw["annotations"] if a["image_id"] != raw["images"][1]["id"]]

    change(labels, edit)
    packed = tmp_path / "all.zip"
    assert pack(labels, labels.parent, packed, 32) == 4
    for pictures in (CocoPictures(labels, labels.parent), CocoPictures(packed)):
        _, known = pictures.read(1)
        assert (known.keypoints.shape, known.sizes.shape, len(known.ignore)) == ((0, 17, 3), (0,), 0)
    sample = Mixture([(CocoPictures(packed), 1.0)], side=32, full_size=100)
    assert sorted(sample[n]["heatmaps"][0].max() > 0 for n in range(4)) == [False, True, True, True]


def test_a_person_has_the_size_of_the_box(labels):
    def edit(raw):
        for annotation in raw["annotations"]:
            annotation["bbox"] = [0, 0, 9, 16]

    change(labels, edit)
    pictures = CocoPictures(labels, labels.parent)
    assert pictures.read(0)[1].sizes.tolist() == [12, 12]
    half = move(pictures.read(0)[1], np.array([[0, 0.5, 3], [-0.5, 0, 4]]))  # turned, and half as large
    np.testing.assert_allclose(half.sizes, [6, 6], rtol=1e-6)


def test_joints_that_a_set_never_labels_are_named(labels):
    change(labels, lambda raw: [a.update(unlabelled_keypoints=[0, 4]) for a in raw["annotations"]])
    _, known = CocoPictures(labels, labels.parent).read(0)
    assert np.flatnonzero(~known.labelled).tolist() == [0, 4]


def test_a_pack_holds_the_same_pictures_smaller(labels, tmp_path):
    assert pack(labels, labels.parent, tmp_path / "set.zip", short_side=64) == 4
    packed = pickle.loads(pickle.dumps(CocoPictures(tmp_path / "set.zip")))
    assert len(packed) == 4
    image, known = packed.read(1)
    original, expected = drawing.draw(1)
    smaller = cv2.resize(original, (64, 64), interpolation=cv2.INTER_AREA)
    assert np.abs(image.astype(int) - smaller).mean() < 8  # JPEG
    np.testing.assert_allclose(known.keypoints, expected * (0.5, 0.5, 1), atol=0.01)


def test_exif_orientation_is_ignored_as_in_the_labels(labels, tmp_path):
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"  # to be turned by 90 degrees
    plain = cv2.imencode(".jpg", drawing.draw(0)[0][:96])[1].tobytes()
    turned = plain[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + plain[2:]
    upright = cv2.imdecode(np.frombuffer(turned, np.uint8), cv2.IMREAD_COLOR)
    assert upright is not None
    assert upright.shape == (128, 96, 3)
    (labels.parent / "0.png").write_bytes(turned)
    pack(labels, labels.parent, tmp_path / "set.zip", 96)
    for pictures in (CocoPictures(labels, labels.parent), CocoPictures(tmp_path / "set.zip")):
        assert pictures.read(0)[0].shape == (96, 128, 3)


def test_drawn_pictures_are_the_same_each_time():
    pictures = DrawnPictures(3, size_wh=(96, 80), seed=5)
    (first, people), (again, _) = pictures.read(1), pictures.read(1)
    np.testing.assert_array_equal(first, again)
    assert first.shape == (80, 96, 3)
    assert people.keypoints.shape[1:] == (17, 3)
    assert (people.keypoints[..., 2] > 0).any(1).all()
    assert (pictures.read(2)[0] != first).any()


def test_drawn_scenes_are_a_data_set_and_not_the_clip(tmp_path):
    assert write_scenes(tmp_path / "one", scenes=1, frames=2) == 2
    pictures = CocoPictures(tmp_path / "one" / "labels.json", tmp_path / "one")
    image, people = pictures.read(0)
    assert image.shape == (480, 640, 3)
    assert len(people.keypoints)
    bundled, _ = next(draw_frames(1))
    assert (image != bundled).mean() > 0.5


@pytest.mark.parametrize("text", ["", "{}", '{"images": [], "annotations": []}', "PK"])
def test_a_file_that_is_no_keypoint_file_is_one_clear_error(tmp_path, text):
    path = tmp_path / "labels.json"
    path.write_text(text)
    for folder in (tmp_path, None):
        with pytest.raises(SourceError, match=r"labels\.json is not a COCO keypoint file"):
            CocoPictures(path, folder)
    cut = tmp_path / "cut.json.gz"
    cut.write_bytes(gzip.compress(b"{" * 100)[:-9])
    with pytest.raises(SourceError, match=r"cut\.json\.gz is not a COCO keypoint file"):
        CocoPictures(cut, tmp_path)
    with pytest.raises(SourceError, match=r"missing\.json"):
        CocoPictures(tmp_path / "missing.json", tmp_path)


def test_a_damaged_picture_is_named(labels):
    (labels.parent / "1.png").write_bytes(b"no picture")
    with pytest.raises(SourceError, match=r"1\.png"):
        CocoPictures(labels, labels.parent).read(1)
