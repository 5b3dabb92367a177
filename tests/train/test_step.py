"""Schedules by time, the choice of a memory layout, and the command with its pictures in memory."""

from __future__ import annotations

import itertools
import json
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from tests.train import drawing, movenet
from tests.train.narrow import Narrow
from train.__main__ import main
from train.device_mixture import DeviceMixture
from train.loop import Run
from train.mixture import Mixture
from train.options import Options
from train.pictures import CocoPictures


def run_of(folder, **options) -> Run:
    labels = folder / "labels.json"
    if not labels.exists():
        drawing.write(folder)
    torch.manual_seed(0)
    mixture = Mixture([(CocoPictures(labels, folder), 1.0)], side=64)
    settings = Options(steps=8, batch=4, bf16=False, log_every=100, **options)
    return Run(Narrow(width=8), DeviceMixture(mixture, 4, "cpu"), folder / f"run{options}", settings)


def tell_time(monkeypatch) -> list[float]:
    """A clock for train.loop and train.step: its seconds, to be set by the test."""
    now = [0.0]
    ticks = itertools.count()
    clock = SimpleNamespace(monotonic=lambda: now[0] + 1e-9 * next(ticks))
    monkeypatch.setattr("train.loop.time", clock)
    monkeypatch.setattr("train.step.time", clock)
    return now


def test_a_timed_schedule_begins_with_the_first_step_and_ends_with_the_time(tmp_path, monkeypatch):
    now = tell_time(monkeypatch)
    run = run_of(tmp_path, timed=True, minutes=1.0, rate=1e-3, warm_up=1)
    learn, rates = run._learn, []

    def learn_for_seconds(batch, *, rate, frozen):
        rates.append(rate)
        now[0] = now[0] + 5 if len(rates) > 1 else 30.0  # the first step waits for the kernels
        return learn(batch, rate=rate, frozen=frozen)

    monkeypatch.setattr(run, "_learn", learn_for_seconds)
    assert run.train()
    assert now[0] == 60 and len(rates) == 7
    assert rates[0] == rates[1] == pytest.approx(1e-3)
    assert rates[4] == pytest.approx(0.505e-3)  # at 45 s, half of the time after the first step
    assert rates[6] == pytest.approx(0.0763e-3, rel=1e-3)  # at 55 s


@pytest.mark.parametrize(
    ("passes_s", "chosen"),
    [
        ({torch.channels_last: [1.0, 0.2], torch.contiguous_format: [0.6, 0.1]}, torch.contiguous_format),
        ({torch.channels_last: [9.0, 0.2], torch.contiguous_format: [0.6, 0.3]}, torch.channels_last),
        ({torch.channels_last: [9.0, 0.2], torch.contiguous_format: [5.0]}, torch.channels_last),
    ],
)
def test_the_faster_memory_layout_is_used_and_a_slow_first_pass_is_not_repeated(
    tmp_path, monkeypatch, passes_s, chosen
):
    now = tell_time(monkeypatch)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    run = run_of(tmp_path)
    step = run._learn
    notes: list[str] = []
    step.on_note = notes.append

    def backward(batch):
        now[0] += passes_s[step._layout].pop(0)

    monkeypatch.setattr(step, "_backward", backward)
    (batch,) = run._batches(range(1))
    step.choose_layout(batch)
    assert step._layout == chosen
    assert not any(passes_s.values())
    assert len(notes) == 1 and "torch.channels_last 200.0 ms" in notes[0]


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
