"""ModelSpec: tags of one number or two, in the file and out of it."""

from __future__ import annotations

import json

import pytest

from core.spec import ModelSpec


@pytest.mark.parametrize(
    ("joint_set", "tag_dims", "channels"), [("coco", 1, 17), ("coco", 2, 34), ("crowdpose", 2, 28)]
)
def test_numbers_of_a_tag_travel_with_the_model(joint_set, tag_dims, channels):
    spec = ModelSpec(name="a", joint_set=joint_set, tag_dims=tag_dims)
    assert spec.tag_channels == channels
    assert ModelSpec.from_json(spec.to_json()) == spec


def test_a_file_from_before_there_were_two_numbers_has_one():
    raw = json.loads(ModelSpec(name="a").to_json())
    del raw["tag_dims"]
    assert ModelSpec.from_json(json.dumps(raw)).tag_dims == 1


def test_outputs_that_do_not_fit_are_told_in_words():
    one, two = ModelSpec(name="a"), ModelSpec(name="a", tag_dims=2)
    assert (one.misfit("tags", 17), two.misfit("tags", 34), two.misfit("heatmaps", 17)) == (None, None, None)
    assert one.misfit("tags", 34) == "34 channels; its spec says 17 joints"
    assert two.misfit("tags", 17) == "17 channels; its spec says 17 joints by two numbers"
    assert two.misfit("heatmaps", 34) == "34 channels; its spec says 17 joints"


def test_three_numbers_are_refused():
    with pytest.raises(ValueError, match="tag_dims is 3; expected 1 or 2"):
        ModelSpec(name="a", tag_dims=3)  # type: ignore[arg-type]  # that is the test
