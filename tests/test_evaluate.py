"""The command: its table, its files, its exit statuses; each failure is one line on stderr."""

from __future__ import annotations

import json
import signal
import threading

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

import evaluate
from core.errors import EngineError
from evaluation import check_scales
from export.zoo import DEFAULT_MODEL
from samples.make_crowd import HERE
from tests.command import exit_status
from tests.evaluation.conftest import data  # noqa: F401  (a fixture)
from tests.evaluation.oracle import OracleRunner, oracle_step

CLIP = ["--images", str(HERE / "crowd.mp4"), "--annotations", str(HERE / "crowd.json")]


@pytest.fixture
def oracle(data, monkeypatch):  # noqa: F811
    """Models of every name know the answer; the arguments of a command that evaluates them."""
    folder, file, people, sizes = data
    opened = []

    def open_step(model, options):
        opened.append(OracleRunner(people, sizes, off=2.0 if model == "w32-512" else 0.0))
        return oracle_step(opened[-1], flip=options.flip, options=options.decode)

    monkeypatch.setattr(evaluate, "open_step", open_step)
    yield ["--images", str(folder), "--annotations", str(file)]
    assert all(runner.closed for runner in opened)


def error_line(capsys):
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1, captured.err
    assert captured.err.startswith("evaluate.py: ")
    return captured.err


def test_the_bundled_model_on_the_sample_clip(capsys, tmp_path):
    saved = tmp_path / "people.json"
    assert evaluate.main([*CLIP, "--limit", "3", "--decode", "half", "--save-json", str(saved)]) == 0
    out = capsys.readouterr().out
    header, row, caption = out.splitlines()[:3]
    assert header.split()[:4] == ["model", "engine", "AP", "AP50"]
    assert row.split()[0] == DEFAULT_MODEL
    assert "3 of 3 images" in caption
    assert "half resolution" in caption
    for result in json.loads(saved.read_text()):
        assert result["image_id"] in (0, 1, 2)
        assert len(result["keypoints"]) == 51
    # a trained or an untrained network: pycocotools says of the file what the table says
    truth = COCO(str(HERE / "crowd.json"))
    by_hand = COCOeval(truth, truth.loadRes(str(saved)), "keypoints")
    by_hand.params.imgIds = [0, 1, 2]
    by_hand.evaluate()
    by_hand.accumulate()
    by_hand.summarize()
    assert row.split()[2] == f"{by_hand.stats[0]:.3f}"


def test_several_models_in_one_table_and_a_file_for_each(oracle, capsys, tmp_path):
    saved = tmp_path / "people.json"
    assert evaluate.main([*oracle, "--model", "tiny", "w32-512", "--flip", "--save-json", str(saved)]) == 0
    _, good, moved, caption, *_ = capsys.readouterr().out.splitlines()
    assert (good.split()[0], moved.split()[0]) == ("tiny", "w32-512")
    assert float(good.split()[2]) > float(moved.split()[2])
    assert "flip on" in caption
    files = [tmp_path / "people-tiny.json", tmp_path / "people-w32-512.json"]
    assert all(len(json.loads(file.read_text())) == 12 for file in files)

    compared = ["--compare", *map(str, files), *oracle[2:]]
    assert evaluate.main(compared) == 0
    header, first, second, difference, sentence = capsys.readouterr().out.splitlines()
    assert header.split()[0] == "AP"
    values = [float(line.split()[1]) for line in (first, second, difference)]
    assert values[2] == pytest.approx(values[1] - values[0], abs=2e-4)
    assert "12 and 12 people, 12 matched" in sentence

    assert evaluate.main(compared[:3]) == 0  # without annotations: distances alone
    distance = float(capsys.readouterr().out.partition("are ")[2].split()[0])
    assert distance == pytest.approx(np.hypot(2, 2), abs=0.5)


@pytest.mark.parametrize(
    ("models", "files"),
    [
        (["tiny", "a/net.onnx"], {"tiny": "r-tiny", "net.onnx": "r-net"}),
        (["net.onnx", "net.plan"], {"net.onnx": "r-net.onnx", "net.plan": "r-net.plan"}),
        (["a/n.onnx", "b/n.onnx", "w.plan"], {"a/n.onnx": "r-a-n", "b/n.onnx": "r-b-n", "w.plan": "r-w"}),
        (["a/net.onnx", "a/b/net.onnx"], {"a/net.onnx": "r-a-net", "b/net.onnx": "r-b-net"}),
        (["tiny", "a/tiny"], {"tiny": "r-tiny", "a/tiny": "r-a-tiny"}),
        (["a/Net.onnx", "a/net.plan"], {"Net.onnx": "r-Net.onnx", "net.plan": "r-net.plan"}),
        (["a/b.pt", "c/b.pt", "a-b.pt"], {"a/b.pt": "r-1-a-b.pt", "c/b.pt": "r-2-c-b.pt", "a-b.pt": "r-3-a-b.pt"}),
    ],
)
def test_every_model_has_a_row_and_a_file_of_its_own(oracle, capsys, tmp_path, models, files):
    assert evaluate.main([*oracle, "--model", *models, "--save-json", str(tmp_path / "r.json")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1 : 1 + len(files)]] == list(files)
    assert {path.stem for path in tmp_path.glob("r*.json")} == set(files.values())


def test_scales(oracle, capsys, monkeypatch):
    monkeypatch.setattr(OracleRunner, "default_scales", check_scales([0.5, 1, 2]))
    assert evaluate.main([*oracle, "--scales", "0.5", "1", "2"]) == 0
    out = capsys.readouterr().out
    assert float(out.splitlines()[1].split()[2]) > 0.95
    assert "scales 0.5 1 2" in out


def test_missing_images_are_counted_and_named(oracle, data, capsys):  # noqa: F811
    (data[0] / "000000000103.png").unlink()
    assert evaluate.main(oracle) == 0
    captured = capsys.readouterr()
    assert "3 of 4 images" in captured.out
    assert captured.err == "1 images missing, not scored: 000000000103.png\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected --images and --annotations"),
        (["--images", "."], "expected --images and --annotations"),
        ([*CLIP, "--limit", "0"], "--limit: got 0, expected a positive"),
        ([*CLIP, "--size", "100"], "multiple of 64"),
        ([*CLIP, "--gpu", "-1"], "--gpu: got -1, expected a whole number"),
        ([*CLIP, "--gpu", "1", "--engine", "onnxruntime"], "--gpu 1 is for an NVIDIA GPU"),
        ([*CLIP, "--size", "8"], "multiple of 64"),
        ([*CLIP, "--size", "8192"], "up to 4096"),
        ([*CLIP, "--scales", "0.5", "2"], "1 among them"),
        ([*CLIP, "--model", "no-such"], "no model is called"),
        ([*CLIP, "--model", "none.onnx"], "none.onnx"),
        ([*CLIP, "--model", "tiny", "tiny"], "twice"),
        ([*CLIP, "--model", "a.onnx", "./a.onnx"], "twice"),
        ([*CLIP, "--save-json", "no/such/folder/a.json"], "cannot be written"),
        (["--images", "nowhere", *CLIP[2:]], "nowhere does not exist"),
        (["--images", "tests", *CLIP[2:]], "none of the 250 annotated images"),
        ([*CLIP[:2], "--annotations", "nowhere.json"], "nowhere.json cannot be read"),
        ([*CLIP[:2], "--annotations", "LICENSE"], "is not JSON"),
        (["--compare", "nowhere.json", "nowhere.json"], "nowhere.json cannot be read"),
    ],
)
def test_what_cannot_be_asked_for_is_refused_in_one_line(arguments, message, capsys):
    assert exit_status(evaluate.main, arguments) == 2
    assert message in error_line(capsys)


def test_unknown_arguments_end_with_two():
    for arguments in (["--engine", "abacus"], ["--nonsense"], ["--compare", "a.json"]):
        with pytest.raises(SystemExit, match="2"):
            evaluate.main([*CLIP, *arguments])


def test_a_failure_while_running_ends_with_one_and_names_the_frame(oracle, capsys, monkeypatch):
    calls = []

    def fail(self, images):
        calls.append(images.shape)
        raise EngineError("out of memory")

    monkeypatch.setattr(OracleRunner, "infer", fail)
    assert evaluate.main(oracle) == 1
    message = error_line(capsys)
    assert "out of memory" in message
    assert "000000000100.png" in message
    assert len(calls) == 1


def test_ctrl_c_ends_with_130(oracle, capsys, monkeypatch):
    infer = OracleRunner.infer
    shapes = []

    def interrupted(self, images):
        shapes.append(images.shape)
        if len(shapes) == 1:
            signal.raise_signal(signal.SIGINT)
        return infer(self, images)

    before = threading.active_count()
    monkeypatch.setattr(OracleRunner, "infer", interrupted)
    assert evaluate.main(oracle) == 130
    assert "interrupted" in error_line(capsys)
    assert threading.active_count() == before
