"""The command, end to end, and the tiny network's start."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from engine.errors import ModelError
from export.checkpoint import build_from_checkpoint
from export.tiny import BLOCKS, OFFSET_UNIT, TAG_SCALE, build_tiny
from tests.train import drawing
from train.__main__ import main
from train.pictures import CocoPictures
from train.warm_start import fit_tags, load_posenet


def posenet(path):
    """A file shaped as PoseNet's weights, small random values inside."""
    rng = np.random.default_rng(0)
    arrays = {"Conv2d_0": (24, 3, 3, 3)}
    channels = 24
    for index, out in enumerate(BLOCKS, start=1):
        arrays[f"Conv2d_{index}_depthwise"] = (channels, 1, 3, 3)
        arrays[f"Conv2d_{index}_pointwise"] = (out, channels, 1, 1)
        channels = out
    arrays |= {"heatmap_2": (17, channels, 1, 1), "offset_2": (34, channels, 1, 1)}
    weights = {
        f"{name}.weight": rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape) for name, shape in arrays.items()
    }
    biases = {f"{name}.bias": rng.normal(0, 0.1, shape[0]) for name, shape in arrays.items()}
    np.savez(path, **{name: value.astype(np.float16) for name, value in (weights | biases).items()})  # type: ignore[arg-type]  # savez takes any name
    return path


def test_a_run_from_the_command_line_is_cut_resumed_and_written(tmp_path, capsys):
    labels = drawing.write(tmp_path)
    command = [
        *("--run", f"{tmp_path / 'run'}", "--data", f"{labels},{tmp_path}", "--drawn", "4", "--side", "64"),
        *("--batch", "2", "--steps", "2", "--workers", "0", "--log-every", "1", "--threads", "1"),
        *("--out", f"{tmp_path / 'out.safetensors'}"),
        *("--val", f"{labels},{tmp_path}", "--val-side", "64", "--val-limit", "2", "--validate-every", "2"),
    ]  # fmt: skip
    assert main([*command, "--minutes", "0"]) == 0
    assert "stopped after 1 of 2 steps" in capsys.readouterr().out
    assert main(command) == 0
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [(record["step"], record["kind"]) for record in records] == [(1, "train"), (2, "train"), (2, "validation")]
    assert {"AP", "AP50", "AR"} <= records[-1].keys()
    assert (tmp_path / "run" / "curve.png").stat().st_size > 1000
    model = build_from_checkpoint(tmp_path / "out.safetensors")
    average = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)["average"]
    assert all(torch.equal(value, average[name]) for name, value in model.state_dict().items())


def test_a_pack_is_trained_on_like_a_folder(tmp_path, capsys):
    labels = drawing.write(tmp_path)
    assert main(["--data", f"{labels},{tmp_path}", "--pack", f"{tmp_path / 'set.zip'}", "--pack-side", "64"]) == 0
    assert "4 pictures" in capsys.readouterr().out
    command = ["--run", f"{tmp_path / 'run'}", "--data", f"{tmp_path / 'set.zip'},2", "--side", "64", "--batch", "2"]
    assert main([*command, "--steps", "1", "--workers", "0", "--threads", "1"]) == 0
    assert (tmp_path / "run" / "checkpoint.pt").exists()


def test_weights_are_mixed_and_given_a_contrast(tmp_path):
    for name, value in (("a", 1.0), ("b", 3.0)):
        model = build_tiny(17)
        torch.nn.init.constant_(model.tag_scale, value)
        save_file(model.state_dict(), tmp_path / f"{name}.safetensors")
    files = [f"{tmp_path / name}.safetensors" for name in ("a", "b", "out")]
    assert main(["--mix", *files[:2], "--share", "0.25", "--contrast", "1.5", "0.125", "--out", files[2]]) == 0
    mixed = load_file(files[2])
    assert mixed["tag_scale"].tolist() == [1.5, 1.5]
    assert mixed["contrast"].tolist() == [1.5, 0.125]
    assert type(build_from_checkpoint(files[2])) is type(model)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--data", "{missing}.json,{folder}"], "is not a COCO keypoint file"),
        (["--data", "{labels},{folder}", "--model", "w32", "--posenet", "x.npz"], "--posenet is for --model tiny"),
        (["--data", "{labels},{folder}", "--posenet", "{labels}"], "does not hold PoseNet"),
    ],
)
def test_bad_input_is_one_line_and_status_2(tmp_path, capsys, arguments, told):
    names = {"labels": drawing.write(tmp_path), "folder": tmp_path, "missing": tmp_path / "missing"}
    assert main(["--run", f"{tmp_path / 'run'}", *(a.format(**names) for a in arguments)]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("arguments", [[], ["--run", "x"], ["--drawn", "3"], ["--data", "a,b,c,d", "--run", "x"]])
def test_bad_arguments_are_status_2(arguments):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2


def test_posenets_heads_become_the_prior(tmp_path):
    model = build_tiny(17)
    bias: Any = model.coarse.bias
    load_posenet(model, posenet(tmp_path / "posenet.npz"))
    with np.load(tmp_path / "posenet.npz") as arrays:
        np.testing.assert_array_equal(model.backbone.stem.weight.detach(), arrays["Conv2d_0.weight"].astype(np.float32))
        np.testing.assert_allclose(
            bias[17:51].detach(),
            (arrays["offset_2.bias"].astype(np.float32) + 0.5) / OFFSET_UNIT,
            rtol=1e-6,
        )
    # Told "here, and the joint is 6 pixels further right" everywhere, the heatmap is a Gaussian of that distance.
    with torch.no_grad():
        model.coarse.weight.zero_()
        bias.zero_()
        bias[:17] = 100
        bias[34:51] = 6 / OFFSET_UNIT
        quarter, half = model.eval()(torch.zeros(1, 3, 64, 64))
    inner = quarter[0, :17, 2:-2, 2:-2]
    torch.testing.assert_close(inner, torch.full_like(inner, float(np.exp(-(6**2) / (2 * 8**2)))))
    assert half.shape == (1, 17, 32, 32)


def test_other_weights_than_posenets_are_refused(tmp_path):
    np.savez(tmp_path / "other.npz", **{"Conv2d_0.weight": np.zeros((3, 3))})  # type: ignore[arg-type]  # savez takes any name
    with pytest.raises(ModelError, match=r"other\.npz does not hold PoseNet"):
        load_posenet(build_tiny(17), tmp_path / "other.npz")


def test_fitted_tags_tell_people_apart(tmp_path):
    """On the pictures they were fitted to, even with features of random layers."""
    torch.manual_seed(0)
    model = build_tiny(17)
    load_posenet(model, posenet(tmp_path / "posenet.npz"))
    pictures = CocoPictures(drawing.write(tmp_path), tmp_path)
    fit_tags(model, pictures, drawing.SIDE, range(4))
    image, labels = pictures.read(0)
    tensor = torch.from_numpy(image[..., ::-1].copy()).permute(2, 0, 1)[None] / 128 - 1
    with torch.no_grad():
        tags = model(tensor)[0][0, 17:].numpy()
    joints = np.arange(17)
    left, right = (tags[joints, *(person[:, 1::-1] // 4).astype(int).T] for person in labels.keypoints)
    apart = (labels.keypoints[1, :, :2].mean(0) - labels.keypoints[0, :, :2].mean(0)) @ TAG_SCALE
    assert np.median(right) - np.median(left) == pytest.approx(apart, abs=0.5)


def test_a_tag_is_the_place_where_nothing_else_is_known():
    model = build_tiny(17).eval()
    bias: Any = model.coarse.bias
    with torch.no_grad():
        for parameter in (*model.final_layers.parameters(), *model.coarse.parameters()):
            parameter.zero_()
        bias[51:] = 8 * sum(TAG_SCALE)
        tags = model(torch.zeros(1, 3, 64, 128))[0][0, 17]
    expected = TAG_SCALE[0] * (4 * 20 + 2) + TAG_SCALE[1] * (4 * 9 + 2)  # the middle of cell (20, 9), input pixels
    assert tags[9, 20].item() == pytest.approx(expected, rel=1e-5)
    assert tags[9, 0] == tags[9, 1]  # within half a coarse cell of the border the interpolated values stand still
