"""The bundled ONNX files, run by default options, find the people of the sample clip."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors import safe_open

from engine.onnx_file import read_spec
from export import zoo
from pipeline.pose import PosePipeline
from pipeline.sources import open_source
from samples.check import TRUTH, Found, count_matches

BUNDLED = [name for name, model in zoo.MODELS.items() if model.url is None]
FRAMES = (60, 150)


@pytest.mark.parametrize("name", BUNDLED)
def test_its_files_belong_together(name):
    specs = {suffix: read_spec(zoo.MODELS_FOLDER / f"{name}{suffix}.onnx") for suffix in ("", "-fp16")}
    with safe_open(zoo.MODELS_FOLDER / zoo.MODELS[name].file, "pt") as weights:
        tags = weights.get_tensor("final_layers.0.bias").numel()
    assert {spec.name for spec in specs.values()} == {name}
    assert [spec.precision for spec in specs.values()] == ["fp32", "fp16"]
    assert {spec.tag_channels for spec in specs.values()} == {tags}


@pytest.mark.parametrize(("name", "least"), [("tiny", 0.8), ("small", 0.8)])
def test_it_finds_the_people_of_the_drawn_clip(name, least):
    truth = json.loads(TRUTH.read_text())
    hits = misses = 0
    with PosePipeline(name, engine="onnxruntime") as pose, open_source(str(TRUTH.with_suffix(".mp4"))) as source:
        for number, frame in enumerate(source):
            if number in FRAMES:
                people = pose(frame.image)
                found: list[Found] = [
                    {"score": float(score), "keypoints": np.asarray(keypoints).tolist()}
                    for keypoints, score in zip(people.keypoints, people.scores, strict=True)
                    if score >= 0.2
                ]
                true = [person for person in truth["annotations"] if person["image_id"] == number]
                hit, _, missed = count_matches(found, true)
                hits, misses = hits + hit, misses + missed
            if number == max(FRAMES):
                break
    assert hits >= least * (hits + misses) > 0
