"""Which pictures are evaluated, and how they are read."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from core.errors import SourceError
from evaluation import AnnotatedImages, find_images, load_annotations
from evaluation.images import read_unrotated
from samples.make_crowd import HERE


def test_exif_orientation_is_ignored(tmp_path):
    image = np.zeros((40, 60, 3), np.uint8)
    coded = cv2.imencode(".jpg", image)[1].tobytes()
    turned = b"\x01\x12\x00\x03\x00\x00\x00\x01\x00\x06\x00\x00"  # orientation 6: shown turned by 90 degrees
    exif = b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x01" + turned + b"\x00\x00\x00\x00"
    file = tmp_path / "turned.jpg"
    file.write_bytes(coded[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + coded[2:])
    upright = cv2.imread(str(file))
    assert upright is not None
    assert upright.shape == (60, 40, 3)
    read = read_unrotated(file)
    assert read is not None
    assert read.shape == (40, 60, 3)


def test_a_video_gives_the_frames_that_are_annotated():
    annotations = load_annotations(HERE / "crowd.json")
    asked = [annotations.images[i] for i in (3, 0, 7)]
    with AnnotatedImages(HERE / "crowd.mp4", asked) as images:
        frames = list(images)
    assert [frame.index for frame in frames] == [1, 0, 2]  # in the video's order, each with its place in `asked`
    assert frames[0].wh == (640, 480)
    assert images.missing == []


def test_frames_beyond_the_videos_end_are_missing():
    with AnnotatedImages(HERE / "crowd.mp4", [(249, ""), (250, ""), (900, "")]) as images:
        assert [frame.index for frame in images] == [0]
    assert images.missing == ["frame 250", "frame 900"]


def test_a_folder_in_the_file_name_may_be_left_out(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((8, 8, 3), np.uint8))
    assert find_images(tmp_path, [(1, "val2017/a.png"), (2, "b.png")]) == 1
    with AnnotatedImages(tmp_path, [(1, "val2017/a.png")]) as images:
        assert len(list(images)) == 1


def test_no_image_at_all_is_an_error(tmp_path):
    with pytest.raises(SourceError, match=r"none of the 2 annotated images .*the first is a\.png"):
        find_images(tmp_path, [(1, "a.png"), (2, "b.png")])
    with pytest.raises(SourceError, match="does not exist"):
        find_images(tmp_path / "nowhere", [(1, "a.png")])
