"""A small annotated data set on disk: noise, and people whom only the annotations know."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from tests.evaluation.oracle import annotate, crowd

FRAMES_WH = [(320, 240), (200, 301), (257, 193), (240, 240)]


@pytest.fixture
def data(tmp_path):
    """(folder, annotation file, people, sizes); odd sizes among them."""
    rng = np.random.default_rng(3)
    people = [crowd(rng, wh) for wh in FRAMES_WH]
    annotations = annotate(people, FRAMES_WH)
    folder = tmp_path / "images"
    folder.mkdir()
    for image in annotations["images"]:
        noise = rng.integers(0, 255, (image["height"], image["width"], 3), np.uint8)
        cv2.imwrite(str(folder / image["file_name"]), noise)
    file = tmp_path / "annotations.json"
    file.write_text(json.dumps(annotations))
    return folder, file, people, FRAMES_WH
