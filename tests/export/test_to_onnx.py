"""Exported files: what is in them, and that onnxruntime gives PyTorch's numbers. Widths are small where they can be."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto
from torch import nn

from core.errors import ModelError
from core.ort import load_onnxruntime
from core.spec import METADATA_KEY, ModelSpec
from engine.onnx_runner import OnnxRunner
from export import to_onnx, zoo
from export.__main__ import main
from export.head import Aggregated
from export.model import ABLATION, build_model
from export.named import open_checkpoint
from tests.command import exit_status
from tests.export.networks import Small, drawn, recipe

onnxruntime = load_onnxruntime()

FP32 = ModelSpec(name="test")
FP16 = replace(FP32, precision="fp16")


def run(path, image):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(["heatmaps", "tags"], {"image": image})


@pytest.mark.parametrize(("precision", "limit"), [("fp32", 1e-4), ("fp16", 2e-2)])
def test_w32_agrees_with_pytorch(precision, limit, w32, tmp_path):
    path = to_onnx.export_model(w32, replace(FP32, precision=precision), tmp_path / "w32.onnx")
    image = recipe().image(128, 192, seed=1)
    with torch.inference_mode():
        expected = [output.numpy() for output in Aggregated(w32)(torch.from_numpy(image))]
    got = run(path, image.astype("float16" if precision == "fp16" else "float32"))
    for ours, theirs in zip(got, expected, strict=True):
        assert ours.dtype == np.float32
        # Worst seen: 1.2e-6 for fp32, 7e-4 for fp16.
        assert np.abs(ours - theirs).max() <= limit * np.abs(theirs).max()


def test_batch_and_sides_are_free_and_the_spec_is_inside(narrow, tmp_path):
    path = to_onnx.export_model(narrow, FP32, tmp_path / "narrow.onnx")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (image,) = session.get_inputs()
    assert (image.name, image.type, image.shape) == ("image", "tensor(float)", ["N", 3, "H", "W"])
    assert [(o.name, o.type, o.shape) for o in session.get_outputs()] == [
        ("heatmaps", "tensor(float)", ["N", 17, "H/2", "W/2"]),
        ("tags", "tensor(float)", ["N", 17, "H/4", "W/4"]),
    ]
    assert ModelSpec.from_json(session.get_modelmeta().custom_metadata_map[METADATA_KEY]) == FP32
    for shape in ((1, 3, 64, 64), (3, 3, 192, 128)):
        images = np.random.default_rng(0).normal(0, 1, shape).astype(np.float32)
        with torch.inference_mode():
            expected = Aggregated(narrow)(torch.from_numpy(images))
        for ours, theirs in zip(session.run(None, {"image": images}), expected, strict=True):
            np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-4 * float(theirs.abs().max()))


def test_every_convolution_is_half_and_outputs_are_float(narrow, tmp_path):
    graph = onnx.load(to_onnx.export_model(narrow, FP16, tmp_path / "half.onnx")).graph
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    convolutions = [node for node in graph.node if node.op_type in ("Conv", "ConvTranspose")]
    assert len(convolutions) == 303
    assert {types[name] for node in convolutions for name in node.input[1:]} == {TensorProto.FLOAT16}
    assert graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT16
    assert {output.type.tensor_type.elem_type for output in graph.output} == {TensorProto.FLOAT}
    assert not [node for node in graph.node if node.op_type == "BatchNormalization"]
    # Aggregation starts with the casts: all that follows them is in FP32.
    casts = [node for node in graph.node if node.op_type == "Cast"]
    assert [cast.attribute[0].i for cast in casts] == [TensorProto.FLOAT] * 2


def test_a_fixed_size_is_fixed(small, tmp_path):
    spec = replace(FP32, fixed_hw=(64, 128))
    graph = onnx.load(to_onnx.export_model(small, spec, tmp_path / "fixed.onnx")).graph
    assert [d.dim_value for d in graph.input[0].type.tensor_type.shape.dim] == [1, 3, 64, 128]


@pytest.mark.parametrize("spec", [FP32, FP16], ids=["fp32", "fp16"])
def test_the_same_network_gives_the_same_bytes_and_is_left_as_it_was(spec, small, tmp_path):
    small.train()
    before = {key: value.clone() for key, value in small.state_dict().items()}
    first, second = (to_onnx.export_model(small, spec, tmp_path / name).read_bytes() for name in ("1.onnx", "2.onnx"))
    assert first == second
    after = small.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert all(module.training and not module._forward_hooks for module in small.modules())


VARIANTS: dict[str, dict[str, Any]] = {
    **{name: dict(switches) for name, switches in ABLATION.items()},
    "two deconvolutions": {"deconvolutions": 2},
    "CrowdPose": {"joints": 14},
}


@pytest.mark.parametrize("spec", [FP32, FP16], ids=["fp32", "fp16"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_agrees_with_pytorch(variant, spec, tmp_path):
    model = drawn(Small(**VARIANTS[variant]))
    path = to_onnx.export_model(
        model, replace(spec, joint_set="coco" if model.joints == 17 else "crowdpose"), tmp_path / "variant.onnx"
    )
    heatmaps, tags = run(path, np.zeros((1, 3, 64, 128), spec.input_dtype))
    assert (heatmaps.shape, tags.shape) == ((1, model.joints, 32, 64), (1, model.joints, 16, 32))


class Deconvolutions(nn.Module):
    """A grouped deconvolution and a grouped convolution with a bias, each under batch-norm."""

    def __init__(self):
        super().__init__()
        self.up = nn.ConvTranspose2d(3, 12, 4, stride=2, padding=1, groups=3)
        self.up_norm = nn.BatchNorm2d(12)
        self.conv = nn.Conv2d(12, 8, 3, groups=4)
        self.conv_norm = nn.BatchNorm2d(8, affine=True)

    def forward(self, x):
        return self.conv_norm(self.conv(torch.relu(self.up_norm(self.up(x)))))


def test_folding_respects_groups_bias_and_the_deconvolutions_layout():
    torch.manual_seed(0)
    model = Deconvolutions().eval()
    for key, value in model.state_dict().items():
        if "norm" in key and value.is_floating_point():
            nn.init.uniform_(value, 0.5 if key.endswith(("weight", "var")) else -1, 2)
    image = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        folded = to_onnx.fold_batch_norm(model)
        torch.testing.assert_close(folded(image), model(image), rtol=1e-5, atol=1e-5)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())


def test_a_batch_norm_that_cannot_be_folded_is_named():
    with pytest.raises(ModelError, match="batch-norm 1 does not follow"):
        to_onnx.fold_batch_norm(nn.Sequential(nn.ReLU(), nn.BatchNorm2d(3)))


def test_a_wrong_export_is_refused_and_leaves_no_file(small, tmp_path, monkeypatch):
    fold = to_onnx._fold

    def wrong(conv, norm):
        fold(conv, norm)
        conv.bias += 0.01

    monkeypatch.setattr(to_onnx, "_fold", wrong)
    with pytest.raises(ModelError, match=r"gives other heatmaps than PyTorch: .*expected <= 0\.0001"):
        to_onnx.export_model(small, FP32, tmp_path / "wrong.onnx")
    assert not list(tmp_path.iterdir())


def test_values_beyond_half_precision_are_refused(small, tmp_path):
    small.load_state_dict(small.state_dict() | {"final_layers.0.bias": torch.full((34,), 1e5)})
    with pytest.raises(ModelError, match="export with --fp32"):
        to_onnx.export_model(small, FP16, tmp_path / "overflow.onnx")


def test_a_picture_checks_the_export(small, tmp_path):
    cv2.imwrite(str(tmp_path / "picture.png"), np.random.default_rng(0).integers(0, 255, (90, 160, 3), np.uint8))
    spec = replace(FP32, short_side=128)
    to_onnx.export_model(small, spec, tmp_path / "checked.onnx", check_image=tmp_path / "picture.png")
    (tmp_path / "text.png").write_text("not a picture")
    for name in ("text.png", "none.png"):
        with pytest.raises(ModelError, match="cannot be read as a picture"):
            to_onnx.export_model(small, spec, tmp_path / "no.onnx", check_image=tmp_path / name)
    assert not (tmp_path / "no.onnx").exists()


@pytest.mark.parametrize(("name", "side", "tag_dims"), [("tiny", 320, 1), ("small", 448, 2)])
def test_bundled_models_export_by_name_with_their_own_input(tmp_path, monkeypatch, name, side, tag_dims):
    from safetensors.torch import save_file

    from export.tiny import TINY_MEAN

    monkeypatch.setattr(zoo, "MODELS_FOLDER", tmp_path)
    torch.manual_seed(0)
    save_file(build_model(name).state_dict(), tmp_path / f"{name}.safetensors")
    path = to_onnx.export_checkpoint(name, tmp_path / f"{name}.onnx", fp16=False)
    metadata = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    spec = ModelSpec.from_json(metadata[METADATA_KEY])
    assert (spec.name, spec.short_side, spec.mean, spec.precision) == (name, side, TINY_MEAN, "fp32")
    assert spec.tag_dims == tag_dims
    assert open_checkpoint(name, fp16=False)[1] == spec
    with OnnxRunner(path) as runner:
        assert runner.infer(np.zeros((1, 3, 64, 128), np.float32)).tags.shape == (1, 17 * tag_dims, 16, 32)


def test_command_line(narrow, tmp_path, capsys):
    torch.save(narrow.state_dict(), tmp_path / "my-model.pth.tar")
    out = tmp_path / "made" / "model.onnx"
    assert main([str(tmp_path / "my-model.pth.tar"), "--size", "128", "--out", str(out)]) == 0
    assert "checked against PyTorch" in capsys.readouterr().out
    spec = ModelSpec.from_json(onnx.load(out).metadata_props[0].value)
    assert spec == replace(FP16, name="my-model", short_side=128)


def test_the_list_names_models_and_their_size(capsys):
    assert main(["--list"]) == 0
    text = capsys.readouterr().out
    for entry in ("28,645,331", "63,827,139", "46.20 G", *zoo.MODELS, *ABLATION):
        assert entry in text


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["w33", "--out", "x.onnx"], 2, "w33 is neither a file nor a named model"),
        (["noise.pth", "--out", "x.onnx"], 2, "noise.pth cannot be read as a checkpoint"),
        (["good.pth", "--size", "0", "--out", "x.onnx"], 2, "--size: got 0, expected a multiple of 64"),
        (["good.pth", "--size", "100", "--out", "x.onnx"], 2, "--size: got 100, expected a multiple of 64"),
        (["good.pth", "--fixed", "100x64", "--out", "x.onnx"], 2, "fixed_hw is (100, 64)"),
        (["good.pth", "--out", "noise.pth/x.onnx"], 2, "cannot be written"),
        (["w32-512", "--out", "x.onnx"], 1, "w32-512 could not be downloaded"),
    ],
)
def test_mistakes_are_one_line(arguments, status, message, narrow, tmp_path, monkeypatch, capsys):  # noqa: PLR0917
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "*")
    unreachable = replace(zoo.MODELS["w32-512"], url="http://127.0.0.1:1/weights.pth")
    monkeypatch.setitem(zoo.MODELS, "w32-512", unreachable)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    (tmp_path / "noise.pth").write_bytes(random.Random(0).randbytes(3000))
    torch.save(narrow.state_dict(), tmp_path / "good.pth")
    assert exit_status(main, arguments) == status
    told = capsys.readouterr().err
    assert told.startswith("python -m export: ")
    assert message in told
    assert told.count("\n") == 1
    assert not (tmp_path / "x.onnx").exists()


@pytest.mark.parametrize("arguments", [[], ["w32-512"], ["--out", "x.onnx"], ["w32-512", "--fixed", "64"]])
def test_missing_arguments_exit_2(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
