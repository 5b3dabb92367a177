"""bf16 with chosen layers in FP32, for OpenVINO: select the layers, mark them, and check the compiled model.

The layers from the last convolutions on are FP32, for both outputs: a tag is a position of up to about twenty units,
and two people's tags differ by one, which bf16's eight bits would round to 1/16. In the bundled models all but one of
the backbone's blocks, small's wider pyramid and the head up to its last layer are bf16, which hold most of the
multiplications.
Errors, times and AP: benchmarks/RESULTS.md.
"""

from __future__ import annotations

import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Callable, Container, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import openvino

CONVOLUTIONS = frozenset(
    ("Convolution", "GroupConvolution", "ConvolutionBackpropData", "GroupConvolutionBackpropData", "MatMul")
)
RUN_CONVOLUTIONS = frozenset(
    ("Convolution", "Deconvolution", "FullyConnected", "MatMul")
)  # as the CPU plugin names them
NOT_COMPUTED = frozenset(("Constant", "Parameter"))
BLOCKS = "/backbone/blocks."  # in the names of a MoveNet backbone's inverted residual blocks (export/movenet.py)
# In the names of the layers of a network with such blocks that run in bf16: also small's wider pyramid, and the head.
IN_BF16 = (BLOCKS, "/pyramid/", "/deconv_layers.")
IN_FP32 = (BLOCKS + "2/",)  # of those blocks: a fifth of the heatmaps' error for a fiftieth of the time
# OpenVINO's own mark, "do not convert from any type to these types". Its CPU plugin keeps such a layer's type.
MARK = {"name": "DisablePrecisionConversion", "version": "0", "value": "dynamic:bf16,f16"}

MARKING = 4  # to be raised when other layers are marked: compiled models are kept with this number


def keep_in_fp32(core: openvino.Core, model: openvino.Model, outputs: Sequence[str]) -> openvino.Model:
    """The same model, of a fixed input shape, with the `layers_in_fp32` marked to stay FP32.

    The Python API cannot set the mark. So the model is saved to a temporary folder, marked there, and read back.
    """
    import openvino
    from openvino._offline_transformations import apply_moc_transformations

    # Passes that replace layers come before the marks, which a replaced layer loses. With constants folded, since only
    # then a constant factor, such as that of two-dimensional tags, is fused into the convolution before it.
    model = model.clone()
    apply_moc_transformations(model, cf=True)
    marked = layers_in_fp32(model, outputs)
    _lower_interpolations(model, marked)
    _join_without_split(model)
    with tempfile.TemporaryDirectory() as folder:
        xml, weights = Path(folder) / "model.xml", Path(folder) / "model.bin"
        openvino.serialize(model, xml, weights)
        root = ET.fromstring(xml.read_bytes())
        for layer in root.iterfind("layers/layer"):
            if layer.get("name") in marked:
                info = layer.find("rt_info")
                ET.SubElement(ET.SubElement(layer, "rt_info") if info is None else info, "attribute", MARK)
        return core.read_model(ET.tostring(root), weights.read_bytes())


def _lower_interpolations(model: openvino.Model, names: Container[str]) -> None:
    """Make each of these layers that is an Interpolate-11 the Interpolate-4 that the CPU plugin would replace it by."""
    import openvino
    from openvino.utils import replace_node
    from openvino.utils.node_factory import NodeFactory

    for node in model.get_ordered_ops():
        kind, name = node.get_type_info(), node.get_friendly_name()
        if (kind.name, kind.version_id) != ("Interpolate", "opset11") or name not in names:
            continue
        images, scales, *axes = (into.get_source_output() for into in node.inputs())
        attributes = node.get_attributes()
        if axes or attributes["shape_calculation_mode"] != "scales":
            continue  # no export writes these; this layer runs in bf16
        sizes = openvino.op.Constant(np.array(node.get_output_shape(0), np.int64))
        lowered = NodeFactory("opset4").create("Interpolate", [images, sizes, scales], attributes)
        lowered.set_friendly_name(name)
        replace_node(node, lowered)


def _join_without_split(model: openvino.Model) -> None:
    """Read the parts of a Concat where a split restores them: in FP32 this split took a twentieth of small's pass."""
    for split in model.get_ordered_ops():
        if split.get_type_name() != "VariadicSplit":
            continue
        joined = split.input_value(0).get_node()
        if joined.get_type_name() != "Concat" or joined.get_attributes()["axis"] != _number(split.input_value(1)):
            continue
        parts = [into.get_source_output() for into in joined.inputs()]
        if [part.get_shape() for part in parts] == [output.get_shape() for output in split.outputs()]:
            for part, output in zip(parts, split.outputs(), strict=True):
                for reader in output.get_target_inputs():
                    reader.replace_source_output(part)


def _number(value: openvino.Output) -> int | None:
    """Of a constant scalar."""
    node = value.get_node()
    return int(node.get_data().item()) if node.get_type_name() == "Constant" else None


def layers_in_fp32(model: openvino.Model, outputs: Sequence[str]) -> frozenset[str]:
    """Names of the layers to keep in FP32: of a network with BLOCKS all that are not `in_bf16`; of others the last."""
    computed = {node.get_friendly_name() for node in model.get_ops() if node.get_type_name() not in NOT_COMPUTED}
    last = last_layers(model, outputs)
    if not any(BLOCKS in name for name in computed):
        return last
    return last | {name for name in computed if not in_bf16(name)}


def in_bf16(name: str) -> bool:
    """Whether a layer of this name, of a network with BLOCKS, runs in bf16; the `last_layers` never do."""
    return any(part in name for part in IN_BF16) and not any(part in name for part in IN_FP32)


def last_layers(model: openvino.Model, outputs: Sequence[str]) -> frozenset[str]:
    """Names of the layers from the last convolution (included) to the output, on every path to these outputs."""
    found = _upwards(
        (model.output(name).get_node() for name in outputs),
        lambda node: node.get_type_name() in CONVOLUTIONS,
    )
    return frozenset(name for name, node in found.items() if node.get_type_name() not in NOT_COMPUTED)


def ends_in_fp32(runtime_model: openvino.Model) -> bool:
    """Whether a compiled model, its `get_runtime_model()`, runs the last convolutions before its outputs in FP32."""
    found = _upwards(runtime_model.get_results(), lambda node: _of_run(node, "layerType") in RUN_CONVOLUTIONS)
    last = [node for node in found.values() if _of_run(node, "layerType") in RUN_CONVOLUTIONS]
    return bool(last) and all(_of_run(node, "runtimePrecision") == "f32" for node in last)


def _upwards(start: Iterable[openvino.Node], is_last: Callable[[openvino.Node], bool]) -> dict[str, openvino.Node]:
    """Name -> node of these nodes' ancestors; the search does not follow the data input of a node that `is_last`."""
    found: dict[str, openvino.Node] = {}
    waiting = list(start)
    while waiting:
        node = waiting.pop()
        if node.get_friendly_name() in found:
            continue
        found[node.get_friendly_name()] = node
        # inputs of an operation fused into a convolution, such as a sum, follow its data and weights
        inputs = node.inputs()[2:] if is_last(node) else node.inputs()
        waiting.extend(into.get_source_output().get_node() for into in inputs)
    return found


def _of_run(node: openvino.Node, key: str) -> str:
    return str(node.get_rt_info()[key].value)
