"""Pads into convolutions: the same numbers without the node, and hands off whatever a convolution cannot do."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from core.ort import load_onnxruntime
from export.padding import fold_padding

onnxruntime = load_onnxruntime()
IMAGE = np.random.default_rng(0).normal(0, 1, (2, 3, 8, 10)).astype(np.float32)


def network(pads, *, mode="constant", value=None, own=(1, 0, 0, 2), pooled=False, free=False) -> onnx.ModelProto:
    """image -> Pad -> Conv (itself padded by `own`), the sizes put together by nodes as PyTorch's tracing does."""
    half = len(pads) // 2
    sizes = [
        numpy_helper.from_array(np.array(part, np.int64), f"sizes{i}")
        for i, part in enumerate((pads[:half], pads[half:]))
    ]
    weight = numpy_helper.from_array(np.random.default_rng(1).normal(0, 1, (4, 3, 3, 3)).astype(np.float32), "weight")
    inputs = [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, "H", "W"])]
    if free:
        inputs.append(helper.make_tensor_value_info("sizes0", TensorProto.INT64, [half]))
        sizes = sizes[1:]
    extra = [] if value is None else [numpy_helper.from_array(np.array(value, np.float32), "value")]
    nodes = [
        helper.make_node("Concat", ["sizes0", "sizes1"], ["pads"], axis=0),
        helper.make_node("Pad", ["image", "pads"] + (["value"] if extra else []), ["padded"], mode=mode),
        helper.make_node("Conv", ["padded", "weight"], ["out"], pads=list(own), strides=[2, 2], kernel_shape=[3, 3]),
    ]
    outputs = [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["N", 4, "h", "w"])]
    if pooled:
        nodes.append(helper.make_node("GlobalMaxPool", ["padded"], ["largest"]))
        outputs.append(helper.make_tensor_value_info("largest", TensorProto.FLOAT, ["N", 3, 1, 1]))
    graph = helper.make_graph(nodes, "net", inputs, outputs, [*sizes, weight, *extra])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    return model


def run(model: onnx.ModelProto) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    result: np.ndarray = session.run(["out"], {"image": IMAGE})[0]
    return result


@pytest.mark.parametrize("pads", [[0, 0, 0, 0, 0, 0, 1, 1], [0, 0, 2, 1, 0, 0, 0, 3]])
@pytest.mark.parametrize("value", [None, 0.0])
def test_the_convolution_pads_by_itself(pads, value):
    model = network(pads, value=value)
    before = run(model)
    assert fold_padding(model) == 1
    onnx.checker.check_model(model)
    assert [node.op_type for node in model.graph.node] == ["Conv"]
    assert [tensor.name for tensor in model.graph.initializer] == ["weight"]
    np.testing.assert_allclose(run(model), before, atol=1e-5)


@pytest.mark.parametrize(
    "changes",
    [
        {"value": 1.0},
        {"mode": "reflect"},
        {"pads": [0, 1, 0, 0, 0, 0, 1, 1]},
        {"pads": [0, 0, -1, 0, 0, 0, 1, 1]},
        {"pooled": True},
        {"free": True},
    ],
    ids=str,
)
def test_other_pads_stay(changes):
    model = network(**{"pads": [0, 0, 0, 0, 0, 0, 1, 1]} | changes)
    before = model.SerializeToString()
    assert fold_padding(model) == 0
    assert model.SerializeToString() == before
