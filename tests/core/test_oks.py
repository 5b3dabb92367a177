"""The similarity against the definition written out, and against pycocotools."""

import math

import numpy as np
import pytest

from core.joints import COCO
from core.oks import joint_similarities


def test_it_is_the_definition():
    found, true = np.zeros((17, 2)), np.full((17, 2), 3.0)
    similarity = joint_similarities(found, true, 900.0)
    for joint, sigma in enumerate(COCO.sigmas):
        assert similarity[joint] == pytest.approx(math.exp(-18 / (2 * 900 * (2 * sigma) ** 2)))


def test_pairs_broadcast():
    rng = np.random.default_rng(0)
    found, true, areas = rng.uniform(0, 99, (3, 1, 17, 2)), rng.uniform(0, 99, (4, 17, 2)), rng.uniform(500, 900, 4)
    similarity = joint_similarities(found, true, areas)
    assert similarity.shape == (3, 4, 17)
    assert similarity[2, 1] == pytest.approx(joint_similarities(found[2, 0], true[1], areas[1]))


def test_it_is_that_of_pycocotools():
    coco = pytest.importorskip("pycocotools.coco")
    evaluation = pytest.importorskip("pycocotools.cocoeval")
    rng = np.random.default_rng(1)
    true, found = rng.uniform(0, 200, (17, 2)), rng.uniform(0, 200, (17, 2))
    person = {"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "area": 9000.0, "bbox": [0, 0, 200, 200]}
    triples = np.c_[true, np.full(17, 2)].ravel().tolist()
    truth = coco.COCO()
    truth.dataset = {
        "info": {}, "images": [{"id": 1}], "categories": [{"id": 1}],
        "annotations": [{**person, "keypoints": triples, "num_keypoints": 17}],
    }  # fmt: skip
    truth.createIndex()
    result = {"image_id": 1, "category_id": 1, "score": 1.0, "keypoints": np.c_[found, np.ones(17)].ravel().tolist()}
    score = evaluation.COCOeval(truth, truth.loadRes([result]), "keypoints")
    score.params.imgIds = [1]
    score._prepare()
    assert joint_similarities(found, true, 9000.0).mean() == pytest.approx(
        float(score.computeOks(1, 1)[0, 0]), abs=1e-9
    )
