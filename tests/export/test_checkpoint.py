"""Checkpoints of three families, whole and damaged."""

from __future__ import annotations

import pickle
import random

import pytest
import torch
from safetensors.torch import save_file

from core.errors import ModelError
from export.checkpoint import build_from_checkpoint, infer_architecture, load_backbone, load_checkpoint, read_state
from export.hrnet import HigherHRNet
from export.model import ABLATION, build_model


def mmpose(state):
    parts = ("final_layers", "deconv_layers")
    return {("keypoint_head." if key.startswith(parts) else "backbone.") + key: v for key, v in state.items()}


FORMATS = {
    "authors.pth": lambda state: state,
    "half.pth.tar": lambda state: {f"1.{key}": value.half() for key, value in state.items()},
    "parallel.pth": lambda state: {f"module.{key}": value for key, value in state.items()},
    "both.pth": lambda state: {f"module.1.{key}": value for key, value in state.items()},
    "mmpose.pth": lambda state: {"meta": {"epoch": 300, "mmpose_version": "0.7.0"}, "state_dict": mmpose(state)},
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_family_loads_entry_by_entry(name, narrow, tmp_path):
    torch.save(FORMATS[name](narrow.state_dict()), tmp_path / name)
    model = build_from_checkpoint(tmp_path / name)
    assert not model.training
    assert_equal_states(model, narrow, tolerance=1e-3 if "half" in name else 0)


def test_safetensors_load_by_name_or_by_content(narrow, tmp_path):
    for name in ("model.safetensors", "model.weights"):
        save_file(narrow.state_dict(), tmp_path / name)
        assert_equal_states(build_from_checkpoint(tmp_path / name), narrow)


def test_narrow_takes_the_backbone_of_small_and_nothing_else(tmp_path):
    torch.save(build_model("small").state_dict(), tmp_path / "small.pth")
    model = build_model("narrow")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    load_backbone(model, tmp_path / "small.pth")
    loaded = torch.load(tmp_path / "small.pth", weights_only=True)
    for key, value in model.state_dict().items():
        assert torch.equal(value, (loaded if key.startswith("backbone.") else before)[key])
    torch.save(build_model("tiny").state_dict(), tmp_path / "tiny.pth")
    with pytest.raises(ModelError, match="misshapen"):
        load_backbone(model, tmp_path / "tiny.pth")


@pytest.mark.parametrize("row", ABLATION)
def test_the_architecture_is_in_the_keys(row, tmp_path):
    model = HigherHRNet(4, 14, **ABLATION[row])
    torch.save(model.state_dict(), tmp_path / "model.pth")
    assert_equal_states(build_from_checkpoint(tmp_path / "model.pth"), model)


def test_two_deconvolutions_and_names_are_told():
    wide = HigherHRNet(8, 17, deconvolutions=2, residual_blocks=1)
    found = infer_architecture(wide.state_dict())
    assert str(found) == "HigherHRNet-W8 with 17 joints, 2 deconvolution modules of 1 residual blocks"
    assert str(infer_architecture(HigherHRNet(32).state_dict())) == "HigherHRNet-W32 with 17 joints"
    for name in ("tiny", "small"):
        state = build_model(name, joints=14).state_dict()
        assert str(infer_architecture(state)) == f"{name} with 14 joints"
        lost = {key: value for index, (key, value) in enumerate(state.items()) if index % 3}
        assert str(infer_architecture(lost)).startswith(name)


def test_what_does_not_fit_is_listed_and_nothing_is_loaded(narrow, tmp_path):
    state = narrow.state_dict()
    del state["layer1.0.conv1.weight"]
    state["layer9.weight"] = torch.zeros(1)
    state["conv2.weight"] = torch.zeros(64, 3, 3, 3)
    torch.save(state, tmp_path / "model.pth")
    model = HigherHRNet(4)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(ModelError) as caught:
        load_checkpoint(model, tmp_path / "model.pth")
    told = one_line(caught)
    assert "1 missing (layer1.0.conv1.weight)" in told
    assert "1 unexpected (layer9.weight)" in told
    assert "1 misshapen (conv2.weight (64, 3, 3, 3) instead of (64, 64, 3, 3))" in told
    assert "seems to be: HigherHRNet-W4 with 17 joints" in told
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_a_model_may_grow_beyond_the_file(narrow, tmp_path):
    state = {key: value for key, value in narrow.state_dict().items() if not key.startswith("final_layers.0.")}
    torch.save(state, tmp_path / "part.pth")
    model = HigherHRNet(4)
    before = model.state_dict()["final_layers.0.weight"].clone()
    load_checkpoint(model, tmp_path / "part.pth", grow=True)
    assert torch.equal(model.state_dict()["final_layers.0.weight"], before)
    assert torch.equal(model.state_dict()["conv2.weight"], state["conv2.weight"])
    with pytest.raises(ModelError, match="missing"):
        load_checkpoint(model, tmp_path / "part.pth")
    torch.save(state | {"layer9.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(ModelError, match="unexpected"):
        load_checkpoint(model, tmp_path / "other.pth", grow=True)


def test_a_long_list_is_cut_and_counted(narrow, tmp_path):
    torch.save(narrow.state_dict(), tmp_path / "w4.pth")
    with pytest.raises(ModelError, match=r"misshapen \(.* and \d+ more\); the file seems to be: HigherHRNet-W4"):
        load_checkpoint(HigherHRNet(8), tmp_path / "w4.pth")


def test_crowdpose_weights_are_named_when_coco_was_expected(tmp_path):
    torch.save(HigherHRNet(4, 14).state_dict(), tmp_path / "crowd.pth")
    with pytest.raises(ModelError, match="HigherHRNet-W4 with 14 joints"):
        load_checkpoint(HigherHRNet(4, 17), tmp_path / "crowd.pth")


class Payload:
    def __reduce__(self):
        return (exec, ("raise SystemExit('the checkpoint ran code')",))


def test_pickled_code_is_refused(tmp_path):
    torch.save({"conv1.weight": Payload()}, tmp_path / "evil.pth")
    with pytest.raises(ModelError, match="tensors only"):
        read_state(tmp_path / "evil.pth")
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps(Payload(), protocol=2))
    with pytest.raises(ModelError, match="tensors only"):
        read_state(tmp_path / "evil.pkl")


def test_a_text_is_not_advised_to_be_run(tmp_path):
    """PyTorch's own message for it names the switch that lets a file run its code."""
    (tmp_path / "notes.md").write_text("# Notes, no weights\n")
    with pytest.raises(ModelError, match="no checkpoint, or one that holds code") as caught:
        read_state(tmp_path / "notes.md")
    assert "weights_only" not in str(caught.value)


@pytest.mark.parametrize("name", ["model.pth", "model.safetensors"])
def test_damage_is_one_line(name, narrow, tmp_path):
    path = tmp_path / name
    save = torch.save if path.suffix == ".pth" else save_file
    save(narrow.state_dict(), path)
    whole = path.read_bytes()
    rng = random.Random(0)
    damaged = [b"", b"{", rng.randbytes(5000), b"\x80\x02" + rng.randbytes(500), b"PK\x03\x04" + rng.randbytes(500)]
    damaged += [whole[: rng.randrange(len(whole))] for _ in range(5)]
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(ModelError) as caught:
            build_from_checkpoint(path)
        one_line(caught)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "holds list"),
        ({}, "expected a state_dict"),
        ({"epoch": 3}, "holds keys epoch"),
        ({"fc.weight": torch.zeros(2, 2)}, r"1 tensors \(fc.weight\) that are no HigherHRNet's"),
        ({"final_layers.0.weight": torch.zeros(34, 8, 1, 1)}, "no HigherHRNet's"),
    ],
)
def test_a_foreign_file_is_told_from_a_checkpoint(content, message, tmp_path):
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(ModelError, match=message):
        build_from_checkpoint(tmp_path / "other.pth")


def test_a_folder_or_nothing_is_no_checkpoint(tmp_path):
    for path in (tmp_path, tmp_path / "none.pth"):
        with pytest.raises(ModelError, match="is not a file"):
            read_state(path)


def assert_equal_states(model, other, tolerance=0.0):
    ours, theirs = model.state_dict(), other.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.allclose(ours[key], theirs[key], rtol=0, atol=tolerance) for key in ours)
    assert {value.dtype for key, value in ours.items() if key.endswith("weight")} == {torch.float32}


def one_line(caught) -> str:
    text = str(caught.value)
    assert "\n" not in text
    return text
