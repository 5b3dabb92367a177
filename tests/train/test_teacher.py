"""The teacher: its heatmaps replace the targets of its own sets' pictures only."""

from __future__ import annotations

import json

import pytest
import torch

from export.movenet import PUBLISHED, PUBLISHED_TOP, MoveNet, Parts
from tests.train import drawing, movenet
from train.__main__ import main
from train.teacher import Teacher


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return MoveNet(17, PUBLISHED, PUBLISHED_TOP)


@torch.no_grad()
def test_only_the_pictures_of_its_sets_are_taught(network):
    images = torch.randn(3, 3, 64, 64)
    labels, known = torch.rand(3, 17, 16, 16), torch.zeros(3, 1, 16, 16)
    heatmaps, masks = labels.clone(), known.clone()
    parts = network(images)
    loss = Teacher(network, {1, 2}).teach(images, torch.tensor([1, 0, 2]), parts, heatmaps, masks)
    torch.testing.assert_close(heatmaps[[0, 2]], torch.sigmoid(parts[0][[0, 2]]))
    assert torch.equal(heatmaps[1], labels[1])
    assert masks.mean((1, 2, 3)).tolist() == [1, 0, 1]
    assert float(loss) < 1e-6  # who gives what the teacher gives has nothing to learn


@torch.no_grad()
def test_labels_share_the_targets_where_they_are_known(network):
    images = torch.randn(1, 3, 64, 64)
    labels, masks = torch.rand(1, 17, 16, 16), torch.ones(1, 1, 16, 16)
    masks[..., 8:] = 0
    heatmaps, parts = labels.clone(), network(images)
    Teacher(network, {0}, label_share=0.25).teach(images, torch.tensor([0]), parts, heatmaps, masks)
    theirs = torch.sigmoid(parts.logits)
    torch.testing.assert_close(heatmaps[..., :8], (0.75 * theirs + 0.25 * labels)[..., :8])
    torch.testing.assert_close(heatmaps[..., 8:], theirs[..., 8:])
    assert masks.min() == 1


@torch.no_grad()
def test_the_labels_share_grows_over_the_run(network):
    teacher = Teacher(network, {0}, label_share=(0.2, 0.8))
    images, labels = torch.randn(1, 3, 64, 64), torch.rand(1, 17, 16, 16)
    parts = network(images)
    for done, share in ((0.0, 0.2), (0.5, 0.5), (1.0, 0.8)):
        teacher.set_progress(done)
        heatmaps = labels.clone()
        teacher.teach(images, torch.tensor([0]), parts, heatmaps, torch.ones(1, 1, 16, 16))
        torch.testing.assert_close(heatmaps, torch.lerp(torch.sigmoid(parts.logits), labels, share))


@torch.no_grad()
def test_where_no_labelled_joint_is_near_labels_can_have_another_share(network):
    images, labels = torch.randn(1, 3, 64, 64), torch.zeros(1, 17, 16, 16)
    labels[..., :4] = 0.5
    heatmaps, parts = labels.clone(), network(images)
    teacher = Teacher(network, {0}, label_share=0.9, background_share=0.25)
    teacher.teach(images, torch.tensor([0]), parts, heatmaps, torch.ones(1, 1, 16, 16))
    theirs = torch.sigmoid(parts.logits)
    torch.testing.assert_close(heatmaps[..., :4], (0.1 * theirs + 0.9 * labels)[..., :4])
    torch.testing.assert_close(heatmaps[..., 4:], 0.75 * theirs[..., 4:])


def test_sigmas_are_positive_and_as_many_as_resolutions(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["--drawn", "2", "--run", "r", "--sigma", "2,0"])
    assert "expected positive numbers of cells" in capsys.readouterr().err
    for wrong in ("2:1", "1:2:3", "0:1", ":", "1:x"):
        with pytest.raises(SystemExit):
            main(["--drawn", "2", "--run", "r", "--sigma", wrong])
    assert main(["--drawn", "2", "--run", f"{tmp_path}", "--sigma", "2,1:2,1"]) == 2
    assert "expected one, or one for each of 2 resolutions" in capsys.readouterr().err


def test_a_share_is_from_0_to_1(capsys):
    with pytest.raises(SystemExit):
        main(["--data", "a.json,a", "--run", "r", "--label-share", "2"])
    assert "expected a number from 0 to 1" in capsys.readouterr().err


@torch.no_grad()
def test_its_features_are_learnt_in_their_own_scale(network):
    images, sets = torch.randn(2, 3, 64, 64), torch.tensor([0, 0])
    parts = network(images)
    heatmaps, masks = torch.zeros(2, 17, 16, 16), torch.ones(2, 17, 16, 16)
    off = Parts(*(part + part.std() for part in parts))
    loss = Teacher(network, {0}).teach(images, sets, off, heatmaps, masks)
    assert float(loss) == pytest.approx(0.2, rel=1e-3)  # one standard deviation off, in features and context


def test_nobody_taught_is_no_loss(network):
    heatmaps = torch.rand(1, 17, 16, 16)
    before, images = heatmaps.clone(), torch.zeros(1, 3, 64, 64)
    loss = Teacher(network, {1}).teach(images, torch.tensor([0]), network(images), heatmaps, torch.ones(1))
    assert float(loss) == 0
    assert torch.equal(heatmaps, before)


def test_a_taught_run_from_the_command_line_goes_on_as_it_began(tmp_path, capsys):
    labels, published = drawing.write(tmp_path), movenet.write(tmp_path / "movenet.json")
    command = [
        *("--movenet", f"{published}", "--distilled", f"{labels},{tmp_path}", "--drawn", "4", "--side", "64"),
        *("--batch", "2", "--steps", "2", "--workers", "0", "--log-every", "1", "--threads", "1", "--fp32"),
    ]  # fmt: skip
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert main([*command, "--run", f"{whole}"]) == 0
    assert main([*command, "--run", f"{cut}", "--minutes", "0"]) == 0
    assert main([*command, "--run", f"{cut}"]) == 0
    runs = [[json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()] for run in (whole, cut)]
    losses = [[(record["step"], record["loss"], record["features"]) for record in records] for records in runs]
    assert losses[0] == losses[1]
    assert max(features for _, _, features in losses[0]) > 0
    assert "of 2 steps" in capsys.readouterr().out


def test_a_taught_set_needs_its_teacher(capsys):
    with pytest.raises(SystemExit):
        main(["--distilled", "a.json,a", "--run", "r"])
    assert "--distilled needs --movenet" in capsys.readouterr().err
