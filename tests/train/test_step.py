"""The training step: AdamW in few launches, and the step as a graph, which a stand-in plays here."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

from tests.train import drawing, movenet
from tests.train.narrow import Narrow
from train.__main__ import main
from train.device_mixture import DeviceMixture
from train.loop import Run
from train.mixture import Mixture
from train.optimise import AdamW, parameter_groups
from train.options import Options
from train.pictures import CocoPictures
from train.step import WARM_STEPS


def layers() -> torch.nn.Module:
    torch.manual_seed(0)
    model = torch.nn.Module()
    model.backbone = torch.nn.Sequential(torch.nn.Conv2d(2, 4, 3), torch.nn.Conv2d(4, 3, 1))
    model.head = torch.nn.Linear(3, 2)
    return model


def test_adamw_equals_torchs_with_a_rate_for_each_group():
    ours, theirs = layers(), layers()
    mine = AdamW(parameter_groups(ours, 0.1, backbone_rate=3.0), lr=1e-2)
    reference = torch.optim.AdamW(parameter_groups(theirs, 0.1, backbone_rate=3.0), lr=1e-2)
    generator = torch.Generator().manual_seed(1)
    for step in range(12):
        rate = 1e-2 / (1 + step)
        for group in reference.param_groups:
            group["lr"] = rate * group["rate"]
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            frozen = step < 4 and a.ndim == 1  # these have taken fewer steps than the others
            a.grad = None if frozen else torch.randn(a.shape, generator=generator)
            b.grad = a.grad
        mine.prepare(rate, [p for p in ours.parameters() if p.grad is not None])
        mine.apply()
        reference.step()
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


def test_a_checkpoint_of_torchs_adamw_is_gone_on_with():
    model = layers()
    before = torch.optim.AdamW(parameter_groups(model, 0.0), lr=1e-3)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    before.step()
    mine = AdamW(parameter_groups(model, 0.0), lr=1e-3)
    mine.load_state_dict(before.state_dict())
    mine.step()
    assert {state["step"] for state in mine.state.values()} == {2}


class Played:
    """A StepGraph that runs the step again, as a graph would."""

    def __init__(self, step, batch):
        self.step = step
        self.replays = 0

    def replay(self, batch):
        self.replays += 1
        return self.step(batch)


def run_of(folder, **options) -> Run:
    labels = folder / "labels.json"
    if not labels.exists():
        drawing.write(folder)
    torch.manual_seed(0)
    mixture = Mixture([(CocoPictures(labels, folder), 1.0)], side=64)
    settings = Options(steps=WARM_STEPS + 3, batch=4, bf16=False, log_every=1, **options)
    return Run(Narrow(width=8), DeviceMixture(mixture, 4, "cpu"), folder / f"run{options}", settings)


def test_a_graph_trains_as_the_plain_step_does(tmp_path, monkeypatch):
    plain = run_of(tmp_path)
    plain.train()
    monkeypatch.setattr("train.step.StepGraph", Played)
    graphed = run_of(tmp_path, checkpoint_every=100)
    graphed._learn._may_record = True
    graphed.train()
    graph = graphed._learn.graph
    assert isinstance(graph, Played) and graph.replays == 3
    for name, value in plain.average.model.state_dict().items():
        torch.testing.assert_close(graphed.average.model.state_dict()[name], value)


def test_where_no_graph_can_be_recorded_the_run_goes_on_without(tmp_path, monkeypatch):
    def fail(step, batch):
        raise RuntimeError("operation not permitted when stream is capturing\nmore lines")

    monkeypatch.setattr("train.step.StepGraph", fail)
    run = run_of(tmp_path)
    notes: list[str] = []
    run._learn.on_note = notes.append
    run._learn._may_record = True
    assert run.train()
    assert notes == ["steps run without a CUDA graph: operation not permitted when stream is capturing"]


def test_crops_made_in_memory_teach_from_the_command_line_until_the_time_is_over(tmp_path, capsys):
    labels, published = drawing.write(tmp_path), movenet.write(tmp_path / "movenet.json")
    out = tmp_path / "out.safetensors"
    command = [
        *("--model", "small", "--movenet", f"{published}", "--distilled", f"{labels},{tmp_path}", "--drawn", "4"),
        *("--side", "64", "--batch", "4", "--in-memory", "--timed", "--log-every", "1", "--threads", "1", "--fp32"),
        *("--label-share", "0.2,0.9", "--features-weight", "0.01", "--warm-up", "1", "--half"),
    ]  # fmt: skip
    run = tmp_path / "run"
    assert main([*command, "--run", f"{run}", "--minutes", "0.05", "--snapshot-seconds", "0.5", "--out", f"{out}"]) == 0
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert all(record["loss"] > 0 for record in records)
    assert records[-1]["rate"] < records[0]["rate"] / 2
    text = capsys.readouterr().out
    assert "8 pictures" in text and "stopped" not in text and "2 of 4, 2 of 4" in text
    assert load_file(out).keys() == load_file(next(run.glob("average-*.safetensors"))).keys()


def test_timed_needs_minutes(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["--drawn", "2", "--run", f"{tmp_path}", "--timed"])
    assert "--timed needs --minutes" in capsys.readouterr().err
