"""The command, end to end."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from export.checkpoint import build_from_checkpoint, read_state
from export.small import Small
from export.tiny import Tiny
from tests.train import drawing, movenet
from train.__main__ import main
from train.warm_start import load_movenet


def write_crowdpose(folder: Path) -> Path:
    """The labels of drawing.write with 14 joints and a crowdIndex."""
    raw = json.loads(drawing.write(folder).read_text())
    for annotation in raw["annotations"]:
        annotation |= {"keypoints": annotation["keypoints"][: 3 * 14], "num_keypoints": 14}
    raw["categories"][0]["keypoints"] = raw["categories"][0]["keypoints"][:14]
    raw["images"] = [image | {"crowdIndex": 0.5} for image in raw["images"]]
    path = folder / "crowdpose.json"
    path.write_text(json.dumps(raw))
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


def test_crowdpose_is_validated_with_its_own_scores(tmp_path):
    labels = write_crowdpose(tmp_path)
    command = ["--run", f"{tmp_path / 'run'}", "--data", f"{labels},{tmp_path}", "--side", "64", "--batch", "2"]
    command += ["--steps", "1", "--workers", "0", "--threads", "1", "--val", f"{labels},{tmp_path}", "--val-side", "64"]
    assert main(command) == 0
    record = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert record["kind"] == "validation"
    assert {"AP", "AP easy", "AP medium", "AP hard", "AR"} <= record.keys()
    assert "AP M" not in record


@pytest.mark.parametrize("workers", [0, 1])
def test_a_missing_picture_ends_the_run_with_one_line(tmp_path, capsys, workers):
    labels = drawing.write(tmp_path)
    command = ["--run", f"{tmp_path / 'run'}", "--data", f"{labels},{tmp_path / 'missing'}", "--side", "64"]
    assert main([*command, "--steps", "1", "--batch", "2", "--workers", str(workers), "--threads", "1"]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("python -m train: ")
    assert "No such file or directory" in last


@pytest.mark.parametrize("compressed", [False, True])
def test_a_pack_is_trained_on_like_a_folder(tmp_path, capsys, compressed):
    labels = drawing.write(tmp_path)
    if compressed:
        labels = labels.with_suffix(".json.gz")
        labels.write_bytes(gzip.compress(labels.with_suffix("").read_bytes()))
    assert main(["--data", f"{labels},{tmp_path}", "--pack", f"{tmp_path / 'set.zip'}", "--pack-side", "64"]) == 0
    assert "4 pictures" in capsys.readouterr().out
    command = ["--run", f"{tmp_path / 'run'}", "--data", f"{tmp_path / 'set.zip'},2", "--side", "64", "--batch", "2"]
    assert main([*command, "--steps", "1", "--workers", "0", "--threads", "1"]) == 0
    assert (tmp_path / "run" / "checkpoint.pt").exists()


def test_a_finished_run_writes_its_weights_again_in_half_with_a_contrast(tmp_path):
    command = ["--run", f"{tmp_path / 'run'}", "--drawn", "2", "--side", "64", "--batch", "2", "--steps", "1"]
    command += ["--workers", "0", "--threads", "1", "--out", f"{tmp_path / 'out.safetensors'}"]
    assert main(command) == 0
    whole = load_file(tmp_path / "out.safetensors")
    assert whole["contrast"].tolist() == [1, 0, 1]
    assert main([*command, "--half", "--calibration", "1.5", "0.125", "0.5"]) == 0
    half = load_file(tmp_path / "out.safetensors")
    assert half.pop("contrast").tolist() == [1.5, 0.125, 0.5]
    assert {value.dtype for value in half.values() if value.is_floating_point()} == {torch.float16}
    assert all(torch.equal(value, whole[name].to(value.dtype)) for name, value in half.items())
    model = build_from_checkpoint(tmp_path / "out.safetensors")
    assert isinstance(model, Tiny)
    assert model.contrast.tolist() == [1.5, 0.125, 0.5]


def test_tiny_starts_from_movenet(tmp_path, capsys, monkeypatch):
    """The whole initialisation, with few channels and crops, from random weights of MoveNet."""
    monkeypatch.setattr("train.prune.CELLS", 50)
    labels = drawing.write(tmp_path)
    command = ["--movenet", f"{movenet.write(tmp_path / 'model.json')}", "--data", f"{labels},{tmp_path}"]
    command += ["--side", "64", "--batch", "2", "--prune-on", "2", "--distil-steps", "1", "--workers", "0"]
    assert main([*command, "--out", f"{tmp_path / 'start.safetensors'}"]) == 0
    assert "with fitted tags" in capsys.readouterr().out
    model = build_from_checkpoint(tmp_path / "start.safetensors")
    published = load_movenet(tmp_path / "model.json")
    assert isinstance(model, Tiny)
    torch.testing.assert_close(model.backbone.stem.weight, published.stem.weight)
    assert model.tags.weight.abs().sum() > 0


def test_small_starts_from_movenet_and_learns_on(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("train.prune.CELLS", 50)
    monkeypatch.setattr("train.tag_fit.EPOCHS", 2)
    data = ["--data", f"{drawing.write(tmp_path)},{tmp_path}", "--model", "small", "--side", "64", "--workers", "0"]
    start = ["--movenet", f"{movenet.write(tmp_path / 'model.json')}", "--prune-on", "2", "--distil-steps", "1"]
    first, then = tmp_path / "start.safetensors", tmp_path / "then.safetensors"
    assert main([*data, *start, "--batch", "2", "--out", f"{first}", "--calibration", "1.1", "0.1", "0.9"]) == 0
    run = [
        "--run",
        f"{tmp_path / 'run'}",
        "--weights",
        f"{first}",
        "--steps",
        "1",
        "--fp32",
        "--focal",
        "--sigma",
        "1.5,2",
    ]
    assert main([*data, *run, "--batch", "2", "--rate", "1e-3", "--threads", "1", "--out", f"{then}"]) == 0
    assert isinstance(build_from_checkpoint(first), Small)
    before, after = (read_state(path) for path in (first, then))
    torch.testing.assert_close(before["backbone.stem.weight"], load_movenet(tmp_path / "model.json").stem.weight)
    torch.testing.assert_close(before["contrast"], torch.tensor([1.1, 0.1, 0.9]))
    assert after["contrast"].tolist() == [1, 0, 1]  # as while training: the shipped outputs' is chosen at the end
    for name in ("final_layers.0.weight", "backbone.logits.weight"):
        assert before[name].abs().sum() > 0
        assert not torch.equal(before[name], after[name])


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--data", "{missing}.json,{folder}"], "is not a COCO keypoint file"),
        (["--data", "{labels},{folder}", "--movenet", "{labels}", "--out", "x"], "does not hold MoveNet MultiPose"),
        (["--data", "{labels},{folder}", "--backbone", "x"], "--backbone is for --model narrow"),
        (["--data", "{labels},{folder}", "--model", "narrow", "--backbone", "{missing}"], "is not a file"),
        (["--drawn", "2", "--val", "{missing}.json,{folder}"], "missing.json cannot be read"),
        (["--drawn", "2", "--val", "{labels},{missing}"], "0.png does not exist"),
        (["--data", "{missing}.json,{folder}", "--pack", "{missing}.zip"], "missing.json"),
        (["--drawn", "2", "--device", "cuda"], "--device cuda: PyTorch finds no GPU here"),
        (["--drawn", "2", "--device", "gpu"], "--device gpu: expected cpu, cuda"),
        (["--drawn", "2", "--out", "{labels}/x.safetensors"], "File exists"),
        (["--drawn", "2", "--val", "{crowdpose},{folder}"], "labels 14 joints and the training 17"),
    ],
)
def test_bad_input_is_one_line_and_status_2(tmp_path, capsys, arguments, told):
    names = {"labels": drawing.write(tmp_path), "folder": tmp_path, "missing": tmp_path / "missing"}
    names["crowdpose"] = write_crowdpose(tmp_path)
    assert main(["--run", f"{tmp_path / 'run'}", *(a.format(**names) for a in arguments)]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--run", "x"],
        ["--drawn", "3"],
        ["--movenet", "x", "--drawn", "3"],
        ["--scenes", "3"],
        ["--run", "x", "--drawn", "3", "--model", "w32", "--calibration", "1", "0", "1"],
        ["--data", "a,b,c,d", "--run", "x"],
        ["--drawn", "3", "--run", "x", "--validate-every", "5"],
        ["--drawn", "3", "--run", "x", "--side", "100"],
        ["--drawn", "3", "--run", "x", "--freeze", "("],
        ["--drawn", "3", "--run", "x", "--log-every", "0"],
    ],
)
def test_bad_arguments_are_one_line_and_status_2(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_weights_are_written_part_of_the_way_back_to_where_they_came_from(tmp_path, capsys):
    command = ["--run", f"{tmp_path / 'run'}", "--drawn", "2", "--side", "64", "--batch", "2", "--steps", "1"]
    command += ["--workers", "0", "--threads", "1", "--out", f"{tmp_path / 'out.safetensors'}"]
    assert main(command) == 0
    learnt = load_file(tmp_path / "out.safetensors")
    start = {name: value + 1 if value.is_floating_point() else value for name, value in learnt.items()}
    save_file(start, tmp_path / "start.safetensors")
    assert main([*command, "--blend", f"{tmp_path / 'start.safetensors'},0.25"]) == 0
    for name, value in load_file(tmp_path / "out.safetensors").items():
        torch.testing.assert_close(value, learnt[name] + 0.25 if value.is_floating_point() else learnt[name])
    head = "final_layers.1.weight"
    save_file({name: value for name, value in start.items() if name != head}, tmp_path / "start.safetensors")
    assert main([*command, "--grow", "--blend", f"{tmp_path / 'start.safetensors'},0.25"]) == 0
    grown = load_file(tmp_path / "out.safetensors")
    torch.testing.assert_close(grown[head], learnt[head])
    torch.testing.assert_close(grown["tags.weight"], learnt["tags.weight"] + 0.25)
    with pytest.raises(SystemExit):
        main([*command, "--blend", "start.safetensors,2"])
    assert "share from 0 to 1" in capsys.readouterr().err


def test_a_wrong_file_to_blend_with_is_found_before_the_first_step(tmp_path, capsys):
    command = ["--run", f"{tmp_path / 'run'}", "--drawn", "2", "--side", "64", "--batch", "2", "--steps", "1"]
    command += ["--workers", "0", "--threads", "1", "--out", f"{tmp_path / 'out.safetensors'}"]
    assert main([*command, "--blend", f"{tmp_path / 'nothing.safetensors'},0.25"]) == 2
    assert "nothing.safetensors is not a file" in capsys.readouterr().err
    assert not (tmp_path / "run" / "checkpoint.pt").exists()
