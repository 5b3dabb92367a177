"""The ablation: five rows trained and measured on drawn pictures; its runs, with a stub in place of the training."""

from __future__ import annotations

import sys
import time

import pytest
import torch
from safetensors.torch import load_file

from benchmarks import ablation
from benchmarks.ablation_runs import run_all
from export.model import ABLATION, build_model
from tests.train import drawing
from train.arguments import parser_of

# `--run DIR STEPS STATUS SECONDS`: writes weights of each step, then waits, then exits with STATUS.
STUB = """
import pathlib, sys, time
run, steps, status, seconds = sys.argv[2:]
folder = pathlib.Path(run)
folder.mkdir(parents=True)
for step in range(1, int(steps) + 1):
    (folder / f"step-{step}.safetensors").write_text(f"{folder.name} {step}")
print("ends", flush=True)
time.sleep(float(seconds))
sys.exit(int(status))
"""


@pytest.fixture
def program(tmp_path):
    stub = tmp_path / "stub.py"
    stub.write_text(STUB)
    return (sys.executable, str(stub))


def test_five_rows_are_trained_and_measured(tmp_path, capsys):
    labels = drawing.write(tmp_path)
    out = tmp_path / "out"
    small = ["--side", "64", "--batch", "2", "--average-decay", "0.5", "--rate", "1e-6"]
    train = ["--train", f"{labels},{tmp_path}", "--out", f"{out}", "--steps", "2", "--snapshot-steps", "1"]
    train += ["--pretrain", "0.001"]
    assert ablation.main([*train, "--seeds", "3", "--parallel", "2", "--", *small]) == 0
    weights = {path.name for path in out.glob("*.safetensors")}
    assert weights == {"start.safetensors", *(f"row{n}-seed3-step2.safetensors" for n in range(1, 6))}
    assert "2 steps of 5 of 5 runs" in capsys.readouterr().out
    start, last = (load_file(out / name) for name in ("start.safetensors", "row5-seed3-step2.safetensors"))
    torch.testing.assert_close(start["conv1.weight"], last["conv1.weight"], atol=1e-3, rtol=0)
    measure = ["--evaluate", f"{out}", "--val", f"{labels},{tmp_path}", "--val-side", "64", "--val-limit", "1"]
    assert ablation.main(measure) == 0
    text = capsys.readouterr().out
    assert all(f"| {row} |" in text for row in ABLATION)
    assert "2 steps each" in text


@pytest.mark.parametrize("row", range(1, 6))
def test_a_row_has_the_switches_of_the_papers(row):
    given = parser_of(None).parse_args(ablation.switch_arguments(row))
    switches = {"deconvolutions": given.deconvolutions, "residual_blocks": given.residual_blocks}
    switches |= {"concatenate": not given.no_concatenate, "aggregate": not given.no_aggregate}
    ours = build_model("narrow", **switches)
    papers = build_model("narrow", **list(ABLATION.values())[row - 1])
    assert {k: v.shape for k, v in ours.state_dict().items()} == {k: v.shape for k, v in papers.state_dict().items()}
    assert ours.aggregate == papers.aggregate


def test_the_last_common_step_is_kept_and_a_failed_run_left_out(tmp_path, program):
    runs = {"a": ["5", "0", "0"], "b": ["3", "0", "0"], "c": ["1", "7", "0"]}
    result = run_all(runs, tmp_path / "out", parallel=2, program=program)
    assert result.steps == 3
    assert result.failed == {"c": "status 7; ends"}
    assert {name: path.read_text() for name, path in result.kept.items()} == {"a": "a 3", "b": "b 3"}
    assert sorted(path.name for path in (tmp_path / "out").glob("*.safetensors")) == [
        "a-step3.safetensors",
        "b-step3.safetensors",
    ]


def test_what_runs_when_the_time_is_over_is_ended_and_counts(tmp_path, program):
    runs = {"a": ["4", "0", "0"], "b": ["2", "0", "60"], "c": ["3", "0", "0"]}
    told: list[str] = []
    began = time.monotonic()
    result = run_all(runs, tmp_path / "out", parallel=2, limit_s=3.0, tell=told.append, program=program)
    assert time.monotonic() - began < 20
    assert result.steps == 2
    assert result.kept.keys() == {"a", "b", "c"}
    assert result.failed == {}
    assert "1 were running, 0 waiting" in told[-1]


def test_without_weights_nothing_is_kept(tmp_path, program):
    result = run_all({"a": ["0", "0", "0"]}, tmp_path / "out", parallel=1, program=program)
    assert (result.steps, result.kept, result.failed) == (0, {}, {})


def test_the_table_has_means_seeds_and_their_spread():
    scores = {
        (row, seed): {"AP": row / 100 + seed / 1000, "AP50": 0.2, "AR": 0.3} for row in (1, 2, 3, 5) for seed in (0, 4)
    }
    lines = ablation.table(scores, 800).splitlines()
    assert lines[0] == "|  | AP | seed 0 | seed 4 | AP50 | AR | paper's AP |"
    assert lines[2] == "| HRNet baseline | 1.2 | 1.0 | 1.4 | 20.0 | 30.0 | 64.4 |"
    assert lines[5] == "| + heatmap aggregation | – | – | – | – | – | 66.9 |"
    assert "800 steps each. The seeds of a row differ by up to 0.4: rows closer than that are in no order" in lines[-1]
    one = {key: score for key, score in scores.items() if key[1] == 0}
    assert "One seed: rows are in no order" in ablation.table(one, 800)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--train", "x.zip", "--steps", "150"], "--steps is 150; expected a multiple of --snapshot-steps 100"),
        (["--train", "{tmp}", "--out", "{tmp}/o", "--pretrain", "0.01"], "the backbone was not trained: status 2"),
        (["--evaluate", "{tmp}"], "--evaluate needs --val"),
        (["--evaluate", "{tmp}", "--val", "a,b"], "has no row*-seed*-step*.safetensors"),
    ],
)
def test_bad_arguments_are_one_line_and_status_2(tmp_path, capsys, arguments, told):
    assert ablation.main([argument.format(tmp=tmp_path) for argument in arguments]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert len(error.splitlines()) == 1
