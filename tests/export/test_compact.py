"""Weights in half precision where nothing is lost: smaller files, the same bits out."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from core.ort import load_onnxruntime
from export.compact import LARGE, store_half

onnxruntime = load_onnxruntime()
RNG = np.random.default_rng(0)


def network(weight: np.ndarray) -> onnx.ModelProto:
    """x (N, a) @ weight (a, b)."""
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "weight"], ["y"])],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", weight.shape[0]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", weight.shape[1]])],
        [numpy_helper.from_array(weight, "weight")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    return model


def run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    result: np.ndarray = session.run(None, {"x": x})[0]
    return result


def test_exact_weights_take_half_the_room_and_give_the_same_bits():
    weight = RNG.normal(0, 1, (32, 64)).astype(np.float16).astype(np.float32)
    x = RNG.normal(0, 1, (3, 32)).astype(np.float32)
    model = network(weight)
    before, size = run(model, x), model.ByteSize()
    assert store_half(model) == 1
    onnx.checker.check_model(model)
    np.testing.assert_array_equal(run(model, x), before)
    assert model.ByteSize() < 0.6 * size


@pytest.mark.parametrize(
    "weight",
    [
        RNG.normal(0, 1, (32, 64)).astype(np.float32),  # more digits than a half has
        np.full((32, 64), 1e5, np.float32),  # too large for one
        np.full((32, 64), 1e-9, np.float32),  # too small
        np.full((32, 64), np.nan, np.float32),
        np.ones((2, LARGE // 4), np.float32),  # not worth it
    ],
    ids=["digits", "large", "small", "nan", "few"],
)
def test_others_stay(weight):
    model = network(weight)
    before = model.SerializeToString()
    assert store_half(model) == 0
    assert model.SerializeToString() == before


def test_half_and_whole_numbers_stay():
    model = network(np.ones((32, 64), np.float32))
    model.graph.initializer.extend(
        [
            numpy_helper.from_array(np.ones(500, np.float16), "half"),
            numpy_helper.from_array(np.ones(500, np.int64), "whole"),
        ]
    )
    assert store_half(model) == 1
    assert {tensor.name for tensor in model.graph.initializer} == {"weight.half", "half", "whole"}
