"""Scores: perfect people score 1, moved ones less; CrowdPose by its own rules; files that are no results."""

from __future__ import annotations

import json

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from core.errors import SourceError
from core.joints import CROWDPOSE
from evaluation import load_annotations, load_results, score_results
from samples.make_crowd import HERE
from tests.evaluation.oracle import annotate, crowd


def perfect(annotations, *, off=0.0, rng=None):
    """Results that repeat the annotations, moved by about `off` pixels."""
    results = []
    for one in annotations.dataset["annotations"]:
        if not one["num_keypoints"]:
            continue  # hidden behind others
        joints = np.array(one["keypoints"], float).reshape(-1, 3)
        if rng is not None:
            joints[:, :2] += rng.normal(0, off, (len(joints), 2))
        joints[:, 2] = 1
        results.append(
            {"image_id": one["image_id"], "category_id": 1, "keypoints": joints.ravel().tolist(), "score": 0.9}
        )
    return results


def ids(annotations):
    return [image_id for image_id, _ in annotations.images]


def test_perfect_people_of_the_sample_clip_score_one_and_moved_ones_less():
    annotations = load_annotations(HERE / "crowd.json")
    images = ids(annotations)[::10]
    scores = [
        score_results(annotations, perfect(annotations, off=off, rng=np.random.default_rng(0)), images)
        for off in (0.0, 2.0, 6.0, 40.0)
    ]
    assert scores[0]["AP"] == pytest.approx(1.0)
    assert scores[0]["AR"] == pytest.approx(1.0)
    assert 1 > scores[1]["AP"] > scores[2]["AP"] + 0.1 > scores[3]["AP"]
    assert scores[3]["AP"] < 0.05


def test_nobody_found_scores_zero_and_nobody_to_find_is_no_score(tmp_path):
    people = [crowd(np.random.default_rng(0), (200, 200)), np.zeros((0, 17, 3))]
    file = tmp_path / "a.json"
    file.write_text(json.dumps(annotate(people, [(200, 200)] * 2)))
    annotations = load_annotations(file)
    assert score_results(annotations, [], [100])["AP"] == 0
    assert score_results(annotations, [], [101])["AP"] == -1


def test_results_are_left_as_they_were(tmp_path):
    annotations = load_annotations(HERE / "crowd.json")
    results = perfect(annotations)
    before = json.dumps(results)
    score_results(annotations, results, ids(annotations)[:2])
    assert json.dumps(results) == before


def test_crowding_that_some_images_lack_is_refused_before_anything_is_evaluated(tmp_path):
    rng = np.random.default_rng(1)
    content = annotate([crowd(rng, (300, 200), joints=14) for _ in range(2)], [(300, 200)] * 2)
    content["images"][0]["crowdIndex"] = 0.5
    file = tmp_path / "crowdpose.json"
    file.write_text(json.dumps(content))
    with pytest.raises(SourceError, match="crowdIndex for 1 of 2 images; expected it for all"):
        load_annotations(file)


def test_crowdpose_uses_its_own_sigmas_areas_and_crowding(tmp_path):
    rng = np.random.default_rng(1)
    people = [crowd(rng, (300, 200), joints=14) for _ in range(3)]
    content = annotate(people, [(300, 200)] * 3)
    for image, crowding in zip(content["images"], (0.05, 0.5, 0.95), strict=True):
        image["crowdIndex"] = crowding
    for annotation in content["annotations"]:
        annotation["area"] = 1.0  # CrowdPose goes by the box
    file = tmp_path / "crowdpose.json"
    file.write_text(json.dumps(content))
    annotations = load_annotations(file)
    good, bad = perfect(annotations), perfect(annotations, off=60.0, rng=rng)
    mixed = [bad[i] if one["image_id"] == 102 else one for i, one in enumerate(good)]
    scores = score_results(annotations, mixed, ids(annotations))
    assert list(scores) == ["AP", "AP50", "AP75", "AR", "AR50", "AR75", "AP easy", "AP medium", "AP hard"]
    assert scores["AP easy"] == scores["AP medium"] == pytest.approx(1.0)
    assert scores["AP hard"] < 0.1

    moved = perfect(annotations, off=3.0, rng=rng)
    truth = COCO(str(file))
    for annotation in truth.dataset["annotations"]:
        annotation["area"] = 0.53 * annotation["bbox"][2] * annotation["bbox"][3]
    by_hand = COCOeval(truth, truth.loadRes([dict(one) for one in moved]), "keypoints")
    by_hand.params.kpt_oks_sigmas = np.array(CROWDPOSE.sigmas)
    by_hand.evaluate()
    by_hand.accumulate()
    by_hand.summarize()
    assert score_results(annotations, moved, ids(annotations))["AP"] == pytest.approx(by_hand.stats[0], abs=1e-6)
    assert 0 < by_hand.stats[0] < 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("{}", "holds no COCO annotations"),
        ('{"images": [{"id": 1, "file_name": "a"}], "annotations": [{"id": 1}]}', "holds no keypoint annotations"),
        ('{"images": [{"id": 1, "file_name": "a"}], "annotations": []}', "does not have one category"),
        (
            '{"images": [{"id": 1, "file_name": "a"}], "annotations": [{"id": 1, "image_id": 1, "category_id": 1, '
            '"bbox": [0, 0, 1, 1], "keypoints": [1, 2, 2]}]}',
            "17 .COCO. or 14 .CrowdPose. joints",
        ),
    ],
)
def test_files_without_keypoint_annotations_are_refused(tmp_path, text, message):
    file = tmp_path / "a.json"
    file.write_text(text)
    with pytest.raises(SourceError, match=message):
        load_annotations(file)


def test_a_missing_annotation_file_is_named(tmp_path):
    with pytest.raises(SourceError, match=r"none\.json cannot be read"):
        load_annotations(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, None),
        ([{"image_id": 1}], "holds no COCO keypoint results"),
        ([{"image_id": 0, "score": 1, "keypoints": [0.0] * 42}], "14 joints"),
        ([{"image_id": 9999, "score": 1, "keypoints": [0.0] * 51}], "image 9999"),
        ([{"image_id": 0, "score": 1, "keypoints": [0.0] * 50}], "three per joint"),
    ],
)
def test_files_without_results_for_these_images_are_refused(tmp_path, content, message):
    file = tmp_path / "r.json"
    file.write_text(json.dumps(content))
    annotations = load_annotations(HERE / "crowd.json")
    if message is None:
        assert load_results(file, annotations) == []
        return
    with pytest.raises(SourceError, match=message):
        load_results(file, annotations)
