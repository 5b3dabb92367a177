"""The ablation: its rows trained and measured on drawn pictures; its table; the oracle's tags."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from benchmarks import ablation
from benchmarks.true_tags import APART, TrueTags
from evaluation.annotations import load_annotations
from export.model import ABLATION, build_model
from pipeline.letterbox import Letterbox
from tests.train import drawing
from train.arguments import parser_of
from train.validate import Maps


def test_five_rows_are_trained_over_one_frozen_backbone_and_measured(tmp_path, capsys):
    labels = drawing.write(tmp_path)
    start, out = tmp_path / "small.safetensors", tmp_path / "out"
    save_file(build_model("small").state_dict(), start)
    train = ["--train", f"{labels},{tmp_path}", "--out", f"{out}", "--start", f"{start}", "--steps", "2"]
    train += ["--seeds", "3", "--", "--side", "64", "--batch", "2", "--average-decay", "0.5"]
    assert ablation.main(train) == 0
    files = {path.name for path in out.glob("*.safetensors")}
    assert files == {f"row{row}-seed3-step2.safetensors" for row in (1, 2, 3, 5)}
    before, after = load_file(start), load_file(out / "row5-seed3-step2.safetensors")
    name = "backbone.stem.weight"
    assert (after[name] == before[name].half()).all()
    assert after["final_layers.1.weight"].any()  # they start at zero

    capsys.readouterr()
    assert ablation.main(train) == 0  # nothing is left to do
    assert not capsys.readouterr().out

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
    assert len(given.sigma) == 1 + given.deconvolutions


def test_rows_that_differ_in_inference_alone_are_trained_once():
    assert ablation.trained_rows() == {1: 1, 2: 2, 3: 3, 4: 3, 5: 5}


def test_the_table_compares_a_row_with_the_one_before_seed_by_seed():
    scores = {
        (row, seed): {"AP": row / 100 + seed / 1000, "AP50": 0.2, ablation.TRUE: 0.3 + (row == 2) * (seed - 2) / 500}
        for row in (1, 2, 3, 5)
        for seed in (0, 4)
    }
    lines = ablation.table(scores, 800).splitlines()
    assert lines[0] == (
        "|  | AP | each seed | over the row before | AP50 "
        "| AP, true tags | each seed | over the row before | paper's AP |"
    )
    assert lines[2] == "| HRNet baseline | 1.2 | 1.0 1.4 | – | 20.0 | 30.0 | 30.0 30.0 | – | 64.4 |"
    assert lines[3].endswith("| 2.2 | 2.0 2.4 | +1.0, 2 of 2 | 20.0 | 30.0 | 29.6 30.4 | +0.0, 1 of 2 | 66.0 |")
    assert lines[5] == "| + heatmap aggregation | – | – | – | – | – | – | – | 66.9 |"
    assert lines[6].count("–") == 2  # the row before was not measured
    assert (
        lines[-1] == "800 steps each, seeds 0, 4. A row that is higher in all 2 seeds would be so by chance once in 4."
    )
    one = {key: score for key, score in scores.items() if key[1] == 0}
    assert ablation.table(one, 800).splitlines()[-1] == "800 steps each, one seed: rows are in no order."


def test_true_tags_group_by_the_labels(tmp_path):
    oracle = TrueTags(load_annotations(drawing.write(tmp_path)))
    _, people = drawing.draw(0)
    heatmaps, tags = (np.zeros((1, 17, side, side), np.float32) for side in (64, 32))
    maps = Maps(1, Letterbox((128, 128), 1.0, (64, 64)), heatmaps, tags)
    tags = oracle(maps)
    for number, person in enumerate(people):
        at = (person[:, :2] / 4).astype(int)
        assert (tags[0, np.arange(17), at[:, 1], at[:, 0]] == APART * number).all()
    assert not oracle(maps._replace(image_id=99)).any()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            ["--train", "{tmp}", "--out", "{tmp}/o", "--start", "{tmp}/none"],
            "is not a COCO keypoint file or a pack of one",
        ),
        (["--evaluate", "{tmp}"], "--evaluate needs --val"),
        (["--evaluate", "{tmp}", "--val", "a,b"], "has no row*-seed*-step*.safetensors"),
    ],
)
def test_bad_arguments_are_one_line_and_status_2(tmp_path, capsys, arguments, told):
    assert ablation.main([argument.format(tmp=tmp_path) for argument in arguments]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert len(error.splitlines()) == 1
