"""Metadata read out of ONNX files, whole and damaged."""

from __future__ import annotations

import random

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import ModelError
from core.spec import METADATA_KEY, ModelSpec
from engine.onnx_file import read_spec

SPEC = ModelSpec(name="made by hand", short_side=256)


def model(properties):
    graph = onnx.helper.make_graph([], "empty", [], [])
    proto = onnx.helper.make_model(graph)
    onnx.helper.set_model_props(proto, properties)
    return proto.SerializeToString()


def test_the_spec_of_an_export_is_found(small_onnx):
    assert read_spec(small_onnx) == ModelSpec(name="small", precision="fp16", short_side=128)


def test_the_spec_is_found_among_other_properties(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(model({"author": "someone", METADATA_KEY: SPEC.to_json(), "empty": ""}))
    assert read_spec(path) == SPEC


@pytest.mark.parametrize(
    ("properties", "message"),
    [
        ({}, f"has no {METADATA_KEY} in its metadata; expected a file made by python -m export"),
        ({METADATA_KEY: "{}"}, "not a HigherPose model spec"),
        ({METADATA_KEY: SPEC.to_json().replace('"format": 1', '"format": 2')}, "format 2"),
    ],
)
def test_foreign_models_are_told(properties, message, tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(model(properties))
    with pytest.raises(ModelError, match=message):
        read_spec(path)


def test_missing_files_and_folders(tmp_path):
    for path in (tmp_path, tmp_path / "none.onnx"):
        with pytest.raises(ModelError, match="cannot be opened"):
            read_spec(path)


def test_a_truncated_file_is_one_line(small_onnx, tmp_path):
    whole = small_onnx.read_bytes()
    path = tmp_path / "cut.onnx"
    rng = random.Random(0)
    for length in [0, 1, len(whole) - 1, *(rng.randrange(len(whole)) for _ in range(20))]:
        path.write_bytes(whole[:length])
        with pytest.raises(ModelError) as caught:
            read_spec(path)
        assert "\n" not in str(caught.value)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_spec_or_one_error(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError):
        read_spec(path)
