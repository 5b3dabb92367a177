"""bf16 with the last layers in FP32, for OpenVINO: select the layers, mark them, and check the compiled model.

A tag is a position of up to about twenty units, and two people's tags differ by one: bf16's eight bits round that to
1/16. So the layers from the last convolutions on are FP32, for both outputs; with tiny they take about 4 % of the FP32
time. In emulation, the change of AP is smaller than the differences between emulations; it has not run on such a
processor yet: benchmarks/RESULTS.md.
"""

from __future__ import annotations

import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import openvino

CONVOLUTIONS = frozenset(
    ("Convolution", "GroupConvolution", "ConvolutionBackpropData", "GroupConvolutionBackpropData", "MatMul")
)
RUN_CONVOLUTIONS = frozenset(
    ("Convolution", "Deconvolution", "FullyConnected", "MatMul")
)  # as the CPU plugin names them
# OpenVINO's own mark, "do not convert from any type to these types". Its CPU plugin keeps such a layer's type.
MARK = {"name": "DisablePrecisionConversion", "version": "0", "value": "dynamic:bf16,f16"}


def keep_last_layers(core: openvino.Core, model: openvino.Model, outputs: Sequence[str]) -> openvino.Model:
    """The same model, with the layers from the last convolutions to these outputs marked to stay FP32.

    The Python API cannot set the mark. So the model is saved to a temporary folder, marked there, and read back.
    """
    import openvino
    from openvino._offline_transformations import apply_moc_transformations

    model = model.clone()
    apply_moc_transformations(model, False)  # before the marks are set, since it creates new layers without them
    marked = last_layers(model, outputs)
    with tempfile.TemporaryDirectory() as folder:
        xml, weights = Path(folder) / "model.xml", Path(folder) / "model.bin"
        openvino.serialize(model, xml, weights)
        root = ET.fromstring(xml.read_bytes())
        for layer in root.iterfind("layers/layer"):
            if layer.get("name") in marked:
                info = layer.find("rt_info")
                ET.SubElement(ET.SubElement(layer, "rt_info") if info is None else info, "attribute", MARK)
        return core.read_model(ET.tostring(root), weights.read_bytes())


def last_layers(model: openvino.Model, outputs: Sequence[str]) -> frozenset[str]:
    """Names of the layers from the last convolution (included) to the output, on every path to these outputs."""
    found = _upwards(
        (model.output(name).get_node() for name in outputs),
        lambda node: node.get_type_name() in CONVOLUTIONS,
    )
    return frozenset(name for name, node in found.items() if node.get_type_name() not in ("Constant", "Parameter"))


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
