"""bf16 by OpenVINO: which layers are marked to stay FP32, what the compiled model makes of the marks, and the heads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engine.onnx_runner import OnnxRunner
from engine.openvino_precision import MARK, ends_in_fp32, in_bf16, keep_in_fp32, last_layers, layers_in_fp32
from engine.openvino_runner import OpenVinoRunner, load_openvino, process_core
from export.zoo import MODELS_FOLDER

pytest.importorskip("openvino")

TINY = MODELS_FOLDER / "tiny.onnx"
BUNDLED = ["tiny", "small", "tiny-fp16", "small-fp16"]


def test_the_last_layers_lead_from_the_last_convolutions_to_the_outputs():
    load_openvino()
    model = process_core().read_model(TINY)
    model.reshape({"image": [1, 3, 64, 64]})
    last = last_layers(model, ["heatmaps", "tags"])
    assert {"/final_layers.0/Conv", "/tags/Conv", "/more_tags/Conv", "/smoothing/Conv_1"} <= last
    assert not any(name.startswith(("/smoothing/Conv/", "/final_layers.1", "/backbone/logits")) for name in last)
    assert not any("blocks" in name or "depthwise" in name for name in last)


@pytest.mark.parametrize("name", BUNDLED)
def test_all_but_the_layers_for_bf16_is_marked_in_a_bundled_model(name):
    marked = marked_model(MODELS_FOLDER / f"{name}.onnx")
    convolutions = {node.get_friendly_name() for node in marked.get_ops() if "Convolution" in node.get_type_name()}
    kept = with_mark(marked) & convolutions
    assert kept == {convolution for convolution in convolutions if not in_bf16(convolution)}
    assert 2 < len(kept) < len(convolutions) / 2


@pytest.mark.parametrize("name", BUNDLED)
def test_a_compiled_bundled_model_has_its_marked_layers_in_fp32(name):
    """Also its interpolations, and the convolution that a factor is fused into: the plugin replaces both."""
    ran = process_core().compile_model(
        marked_model(MODELS_FOLDER / f"{name}.onnx"), "CPU", {"INFERENCE_PRECISION_HINT": "bf16"}
    )
    kinds = ("Convolution", "Deconvolution", "Interpolate", "Concatenation", "Split", "Subgraph", "Eltwise")
    found = {
        node.get_friendly_name(): node.get_rt_info()["runtimePrecision"].value
        for node in ran.get_runtime_model().get_ops()
        if node.get_rt_info()["layerType"].value in kinds
    }
    of_images = {"f16"} if "fp16" in name else set()
    assert {precision for layer, precision in found.items() if not in_bf16(layer)} - of_images == {"f32"}


def marked_model(path: Path):
    load_openvino()
    core = process_core()
    model = core.read_model(path)
    model.reshape({"image": [1, 3, 64, 64]})
    return keep_in_fp32(core, model, ["heatmaps", "tags"])


def with_mark(model) -> set[str]:
    mark = f"{MARK['name']}_{MARK['version']}"
    return {node.get_friendly_name() for node in model.get_ops() if mark in node.get_rt_info()}


def test_without_a_backbones_blocks_the_last_layers_are_marked(path):
    assert with_mark(marked_model(path)) >= {"heatmaps", "tags"}


def test_of_the_papers_network_the_last_layers_alone_are_fp32(small_onnx):
    """Its deconvolution is named as the bundled models' is."""
    load_openvino()
    model = process_core().read_model(small_onnx)
    assert any(in_bf16(node.get_friendly_name()) for node in model.get_ops())
    outputs = ["heatmaps", "tags"]
    assert layers_in_fp32(model, outputs) == last_layers(model, outputs)


@pytest.mark.parametrize("output", ["heatmaps", "tags"])
def test_a_last_layer_that_runs_in_bf16_is_seen(output):
    load_openvino()
    import openvino

    core = openvino.Core()
    model = core.read_model(TINY)
    model.reshape({"image": [1, 3, 64, 64]})
    ran = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}).get_runtime_model()
    assert ends_in_fp32(ran)
    (node,) = (result for result in ran.get_results() if result.get_friendly_name().startswith(output))
    while node.get_rt_info()["layerType"].value != "Convolution":
        node = node.input(0).get_source_output().get_node()
    node.get_rt_info()["runtimePrecision"] = "bf16"
    assert not ends_in_fp32(ran)


def test_a_bf16_processors_way_gives_the_same_heads(cache):
    """Marked, compiled for bf16 (which other processors run as FP32), kept and taken again."""
    images = np.random.default_rng(0).normal(size=(1, 3, 64, 128)).astype(np.float32)
    with OnnxRunner(TINY) as other:
        expected = other.infer(images)
    for _ in range(2):
        with OpenVinoRunner(TINY, cache=cache) as runner:
            runner.precision = "bf16"
            got = runner.infer(images)
            assert runner.precision == "bf16"
            np.testing.assert_allclose(got.heatmaps, expected.heatmaps, atol=0.06)
            np.testing.assert_allclose(got.tags, expected.tags, atol=0.3)
    assert len(list(cache.folder.iterdir())) == 1


def test_where_the_marks_do_nothing_all_layers_are_fp32(cache, monkeypatch, caplog):
    monkeypatch.setattr("engine.openvino_runner.ends_in_fp32", lambda model: False)
    with OpenVinoRunner(TINY, cache=cache) as runner:
        runner.precision = "bf16"
        runner.infer(np.zeros((1, 3, 64, 64), np.float32))
        assert runner.precision == "fp32"
    assert "does not keep the last layers in FP32" in caplog.text


@pytest.mark.parametrize("name", ["tiny", "small"])
def test_a_bf16_processor_keeps_the_last_layers_in_fp32(cache, name):
    with OpenVinoRunner(MODELS_FOLDER / f"{name}.onnx", cache=cache) as runner:
        if runner.precision != "bf16":
            pytest.skip("this processor does not multiply bf16")
        runner.infer(np.zeros((1, 3, 64, 64), np.float32))
        assert runner.precision == "bf16", "OpenVINO ran the last layers in bf16, so all were run in FP32"
