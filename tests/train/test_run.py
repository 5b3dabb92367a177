"""The training loop: it learns, and a resumed run equals an uninterrupted one."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch

from core.errors import ModelError
from core.spec import ModelSpec
from tests.train import drawing
from tests.train.narrow import Narrow
from train.augment import PLAIN
from train.loop import Run
from train.mixture import Mixture
from train.optimise import MovingAverage, freeze, learning_rate, parameter_groups
from train.options import Options
from train.pictures import CocoPictures


@pytest.fixture(autouse=True)
def _one_thread():
    """One thread: with maps this small, several threads mostly wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def start(folder, *, width=24, steps=8, **options):
    """A run on the four drawn pictures, in folder / "run"; an existing run is resumed."""
    labels = folder / "labels.json"
    if not labels.exists():
        drawing.write(folder)
    torch.manual_seed(0)
    augmentation = options.pop("augmentation", None)
    side = options.pop("side", drawing.SIDE)
    validate = options.pop("validate", None)
    mixture = Mixture([(CocoPictures(labels, folder), 1.0)], side=side, augmentation=augmentation)
    settings = Options(steps=steps, **{"batch": 4, "workers": 0, "bf16": False, "log_every": 2, **options})
    return Run(Narrow(width=width), mixture, folder / "run", settings, validate=validate)


def test_four_pictures_are_learnt(tmp_path):
    from train.validate import Validation

    validate = Validation(drawing.write(tmp_path), tmp_path, ModelSpec(name="narrow", short_side=drawing.SIDE))
    run = start(
        tmp_path,
        steps=150,
        rate=1e-2,
        warm_up=20,
        foreground=5,
        pull_weight=1e-2,
        push_weight=1e-2,
        average_decay=0.9,
        augmentation=PLAIN,
        validate=validate,
        validate_every=150,
        log_every=50,
    )
    assert run.train()
    records = [json.loads(line) for line in run.metrics_path.read_text().splitlines()]
    first, *_, last = [record for record in records if record["kind"] == "train"]
    boxes = [person["bbox"] for person in validate.people(run.average.model)]
    assert boxes
    assert all(0 < side <= drawing.SIDE for box in boxes for side in box[2:])  # COCO sorts people by size with them
    assert last["heatmaps_4"] < first["heatmaps_4"] / 4 and last["heatmaps_2"] < first["heatmaps_2"] / 3
    (score,) = [record for record in records if record["kind"] == "validation"]
    assert score["AP50"] >= 0.95
    assert score["AP"] >= 0.5


def test_validation_comes_at_the_end_and_only_once(tmp_path):
    seen: list[torch.nn.Module] = []

    def validate(model: torch.nn.Module) -> dict[str, float]:
        seen.append(model)
        return {"AP": 0.5}

    settings: dict[str, Any] = {"width": 8, "side": 64, "steps": 4, "validate": validate}
    cut = start(tmp_path, **settings, minutes=0.0)
    assert not cut.train() and not seen
    run = start(tmp_path, **settings)
    assert run.train() and seen == [run.average.model]
    assert json.loads(run.metrics_path.read_text().splitlines()[-1]) == {"step": 4, "kind": "validation", "AP": 0.5}
    assert start(tmp_path, **settings).train() and len(seen) == 1  # a finished run was validated already
    assert start(tmp_path, **(settings | {"steps": 8}), validate_every=3).train()
    records = [json.loads(line) for line in run.metrics_path.read_text().splitlines()]
    assert [record["step"] for record in records if record["kind"] == "validation"] == [4, 6, 8]


def test_a_run_is_resumed_after_a_hard_stop(tmp_path):
    run = start(tmp_path, width=8, side=64, steps=4, snapshot_seconds=1e-9)
    snapshots: list[int] = []
    run.on_snapshot = snapshots.append
    assert run.train() and len(snapshots) == 4
    with run.metrics_path.open("a") as file:
        file.write('{"step": 4, "kin')  # the process was killed in the middle of a line
    again = start(tmp_path, width=8, side=64, steps=8, snapshot_seconds=1e-9)
    assert again.step == 4
    assert all(json.loads(line) for line in again.metrics_path.read_text().splitlines())


def test_snapshots_are_counted_on_after_a_resume(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("train.loop.time.monotonic", lambda: now[0])
    seen: list[int] = []

    def part(steps: int) -> None:
        run = start(tmp_path, width=8, side=64, steps=steps, snapshot_seconds=10.0)
        run.on_step = lambda step, record: now.__setitem__(0, now[0] + 6.0)
        run.on_snapshot = seen.append
        run.train()

    part(4)
    part(8)
    assert seen == [10, 20, 30, 40]


@pytest.mark.parametrize("size", [0, 5000])
def test_a_damaged_checkpoint_is_named(tmp_path, size):
    run = start(tmp_path, width=8, side=64, steps=1)
    run.train()
    run.checkpoint_path.write_bytes(run.checkpoint_path.read_bytes()[:size])
    with pytest.raises(ModelError, match=r"checkpoint\.pt is damaged .*; remove it to start the run again"):
        start(tmp_path, width=8, side=64, steps=2)


def test_a_run_cut_in_two_equals_one_that_was_not(tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    whole.mkdir(), cut.mkdir()
    settings = {"width": 8, "side": 64, "steps": 8, "warm_up": 3, "frozen_steps": 2}
    uninterrupted = start(whole, **settings)
    assert uninterrupted.train()
    first = start(cut, **settings, checkpoint_every=4, minutes=0.0)  # over after a single step
    assert not first.train()
    assert first.step == 1
    second = start(cut, **settings)
    assert second.step == 1
    assert second.train()
    for name, value in uninterrupted.model.state_dict().items():
        assert torch.equal(value, second.model.state_dict()[name]), name
    for name, value in uninterrupted.average.model.state_dict().items():
        assert torch.equal(value, second.average.model.state_dict()[name]), name
    logs = [[json.loads(line) for line in run.metrics_path.read_text().splitlines()] for run in (uninterrupted, second)]
    assert [record["step"] for record in logs[0]] == [record["step"] for record in logs[1]] == [2, 4, 6, 8]
    assert logs[0][-1]["loss"] == logs[1][-1]["loss"]


def test_what_was_logged_after_the_checkpoint_is_logged_anew(tmp_path):
    run = start(tmp_path, width=8, side=64, steps=4)
    run.train()
    with run.metrics_path.open("a") as file:
        file.write(json.dumps({"step": 6, "kind": "train"}) + "\n")
    again = start(tmp_path, width=8, side=64, steps=4)
    assert [json.loads(line)["step"] for line in again.metrics_path.read_text().splitlines()] == [2, 4]


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    start(tmp_path, width=8, side=64, steps=1).train()
    with pytest.raises(ModelError, match="another model"):
        start(tmp_path, width=12, side=64, steps=1)


def test_worker_processes_give_the_same_samples(tmp_path):
    from train.mixture import batches

    mixture = start(tmp_path, side=64).mixture
    here, there = (list(batches(mixture, 3, range(1, 3), workers)) for workers in (0, 1))
    for one, other in zip(here, there, strict=True):
        assert torch.equal(one["image"], other["image"])
        assert all(torch.equal(a, b) for a, b in zip(one["heatmaps"], other["heatmaps"], strict=True))


@pytest.mark.timeout(60)
def test_a_stream_of_batches_may_have_no_end(tmp_path):
    """A run by time has as many steps as it gets; their numbers in memory would be more than any machine has."""
    from train.mixture import batches

    stream = batches(start(tmp_path, side=64).mixture, 3, range(10**9), 0)
    assert [next(stream)["image"].shape[0] for _ in range(2)] == [3, 3]


def test_an_epoch_shows_each_picture_as_often_as_its_weight_says(tmp_path):
    pictures = CocoPictures(drawing.write(tmp_path), tmp_path)
    mixture = Mixture([(pictures, 2.0), (pictures, 0.5)], side=64)
    assert mixture.epoch_length == 10
    for epoch in (0, 3):
        drawn = mixture._epoch(epoch)
        counts = [np.bincount(drawn[drawn[:, 0] == which, 1], minlength=4) for which in (0, 1)]
        assert counts[0].tolist() == [2, 2, 2, 2]
        assert sorted(counts[1]) == [0, 0, 1, 1]
    assert (mixture._epoch(0) != mixture._epoch(1)).any()


def test_sets_without_pictures_or_with_other_joints_are_refused(tmp_path):
    pictures = CocoPictures(drawing.write(tmp_path), tmp_path)
    with pytest.raises(ValueError, match="no picture"):
        Mixture([(pictures, 0.0)], side=64)
    other = CocoPictures(tmp_path / "labels.json", tmp_path)
    other.joints = 14
    with pytest.raises(ValueError, match=r"\[14, 17\]"):
        Mixture([(pictures, 1.0), (other, 1.0)], side=64)


def test_learning_rate_warms_up_and_ends_low():
    rates = [learning_rate(step, peak=1.0, warm_up=10, steps=110) for step in range(111)]
    assert rates[0] == pytest.approx(0.1) and rates[9] == rates[10] == pytest.approx(1)
    assert rates[60] == pytest.approx(0.505)
    assert rates[110] == pytest.approx(0.01)
    assert np.diff(rates[10:]).max() < 0


def test_the_average_forgets_its_start_and_follows_integers():
    layer = torch.nn.BatchNorm1d(2)
    average = MovingAverage(layer, decay=0.5)
    follower: Any = average.model
    with torch.no_grad():
        layer.weight.fill_(3.0)
    layer.num_batches_tracked.fill_(7)  # type: ignore[union-attr]  # there with the default track_running_stats
    average.update(layer)
    assert follower.weight.tolist() == pytest.approx([1 + 2 * (1 - 2 / 11)] * 2)
    assert follower.num_batches_tracked == 7
    for _ in range(50):
        average.update(layer)
    assert follower.weight.tolist() == pytest.approx([3.0, 3.0])


def test_groups_go_by_name():
    backbone = torch.nn.Linear(2, 2)
    torch.nn.init.constant_(backbone.weight, -3.0)
    torch.nn.init.zeros_(backbone.bias)
    model = torch.nn.ModuleDict({"backbone": backbone, "head": torch.nn.Linear(2, 2)})
    groups = [(g["rate"], g["weight_decay"], len(g["params"])) for g in parameter_groups(model, 0.1, backbone_rate=0.2)]
    assert groups == [
        (pytest.approx(0.6), 0.1, 1), (pytest.approx(0.002), 0.0, 1), (1.0, 0.1, 1), (1.0, 0.0, 1),
    ]  # fmt: skip


def test_tensors_of_the_backbone_change_by_the_same_share_however_large_they_are():
    layers = [torch.nn.Linear(8, 8) for _ in range(2)]
    model = torch.nn.ModuleDict({"backbone": torch.nn.ModuleList(layers)})
    small, large = (layer.weight for layer in layers)
    with torch.no_grad():
        small.mul_(1e-3)
    before = small.detach().clone(), large.detach().clone()
    optimizer = torch.optim.AdamW(parameter_groups(model, 0.0, backbone_rate=1.0), lr=1e-2)
    for group in optimizer.param_groups:
        group["lr"] = 1e-2 * group["rate"]
    (small.square().sum() + large.square().sum()).backward()
    optimizer.step()
    shares = [float((a.detach() - b).norm() / b.norm()) for a, b in zip((small, large), before, strict=True)]
    assert shares == pytest.approx([1e-2, 1e-2], rel=0.01)


def test_freezing_goes_by_name():
    model = torch.nn.ModuleDict({"backbone": torch.nn.Linear(2, 2), "head": torch.nn.Linear(2, 2)})
    learning = lambda: [name for name, p in model.named_parameters() if p.requires_grad]  # noqa: E731  # short
    freeze(model, r"head\.bias", backbone=True)
    assert learning() == ["head.weight"]
    freeze(model, None, backbone=False)
    assert len(learning()) == 4
