"""The bundled clip, its annotations and the program that draws them are consistent."""

from __future__ import annotations

import json

import av
import numpy as np
import pytest
from pycocotools.coco import COCO

from samples import make_crowd
from samples.make_crowd import FRAMES, HERE, SIZE_WH


@pytest.fixture(scope="module")
def truth():
    return json.loads((HERE / "crowd.json").read_text())


@pytest.fixture(scope="module")
def decoded():
    with av.open(str(HERE / "crowd.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert stream.average_rate == make_crowd.FPS
        frames = [(float(f.time), f.to_ndarray(format="bgr24")) for f in container.decode(stream)]
    return frames


def test_the_clip_is_small_and_has_every_frame(decoded):
    assert (HERE / "crowd.mp4").stat().st_size < 3_000_000
    assert len(decoded) == FRAMES
    assert all(image.shape == (SIZE_WH[1], SIZE_WH[0], 3) for _, image in decoded)
    assert [time for time, _ in decoded] == pytest.approx([i / make_crowd.FPS for i in range(FRAMES)], abs=1e-3)


def test_the_committed_truth_is_what_the_program_draws(truth, decoded):
    """Draws the first frames again: the annotations are identical, the pictures differ only by the codec's loss."""
    count = 12
    drawn = []
    for index, (image, people) in enumerate(make_crowd.draw_frames(count)):
        drawn += people
        difference = np.abs(image.astype(np.int16) - decoded[index][1].astype(np.int16)).mean()
        assert difference < 6, f"frame {index}"  # H.264 at CRF 22 and its halved colour: 2.6
    first = [a for a in truth["annotations"] if a["image_id"] < count]
    assert json.loads(json.dumps(make_crowd.truth_of(drawn, count)["annotations"])) == first


def test_image_ids_are_frame_indices_and_people_come_and_go(truth):
    assert [image["id"] for image in truth["images"]] == list(range(FRAMES))
    well_seen = np.bincount([a["image_id"] for a in truth["annotations"] if a["num_keypoints"] >= 8], minlength=FRAMES)
    assert well_seen.min() >= 2
    assert well_seen.max() >= 5
    tall = [a["bbox"][3] for a in truth["annotations"] if a["num_keypoints"] == 17]
    assert min(tall) > 110
    assert max(tall) < 335


def test_track_ids_follow_the_same_person_through_the_clip(truth):
    """Ids are unique in a frame, and each moves continuously: with swapped ids a person would jump."""
    seen: dict[int, tuple[int, np.ndarray]] = {}
    jumps = []
    for one in truth["annotations"]:
        frame, track = one["image_id"], one["track_id"]
        joints = np.array(one["keypoints"], float).reshape(17, 3)
        if track in seen:
            before, then = seen[track]
            assert frame > before
            both = (joints[:, 2] > 0) & (then[:, 2] > 0)
            if frame == before + 1 and both.any():
                jumps.append(np.median(np.linalg.norm(joints[both, :2] - then[both, :2], axis=1)))
        seen[track] = (frame, joints)
    assert sorted(seen) == list(range(1, len(make_crowd.CAST) + 1))
    assert max(jumps) < 24  # pixels in 40 ms, of people up to 310 pixels tall; the largest is 19.1


def test_annotations_hold_what_coco_asks(truth):
    width, height = SIZE_WH
    for one in truth["annotations"]:
        joints = np.array(one["keypoints"]).reshape(17, 3)
        left, top, wide, tall = one["bbox"]
        assert one["num_keypoints"] == (joints[:, 2] > 0).sum()
        assert one["area"] > 0
        assert one["iscrowd"] == 0
        assert 0 <= left < left + wide <= width
        assert 0 <= top < top + tall <= height
        shown = joints[joints[:, 2] > 0]
        assert ((shown[:, :2] >= 0) & (shown[:, :2] <= [width, height])).all()
        assert not joints[joints[:, 2] == 0].any()
        seen = joints[joints[:, 2] == 2, :2]
        assert ((seen >= [left - 2, top - 2]) & (seen <= [left + wide + 2, top + tall + 2])).all()


def test_pycocotools_loads_it(capsys):
    coco = COCO(str(HERE / "crowd.json"))
    capsys.readouterr()
    assert len(coco.getImgIds()) == FRAMES
    (person,) = coco.loadCats(coco.getCatIds())
    assert person["name"] == "person"
    assert len(person["keypoints"]) == 17
    assert coco.getAnnIds(imgIds=[0])
