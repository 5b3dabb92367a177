"""Every example runs as its first line says, from any folder, and does what it promises."""

import json
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

ROOT = Path(__file__).parents[1]
CLIP = ROOT / "samples" / "crowd.mp4"


@pytest.fixture
def run(tmp_path):
    def example(name: str, *arguments: object) -> str:
        command = [sys.executable, str(ROOT / "examples" / f"{name}.py"), *map(str, arguments)]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    return example


def test_image(run, tmp_path):
    out = run("image")
    assert out.count("person ") >= 3
    drawn, plain = cv2.imread(str(tmp_path / "pose.jpg")), cv2.imread(str(ROOT / "samples" / "crowd.jpg"))
    assert drawn is not None
    assert plain is not None
    assert drawn.shape == plain.shape
    assert (drawn != plain).any()


def test_webcam(run):
    lines = run("webcam", CLIP, 5).splitlines()
    assert len(lines) == 5
    assert all(" people, " in line for line in lines)


def test_own_sink(run, tmp_path):
    out = run("own_sink", CLIP, "counts.csv", 30)
    assert [line.split(",")[0] for line in out.splitlines()] == ["0", "1"]  # 30 frames at 25 FPS
    assert (tmp_path / "counts.csv").read_text() == out


def test_folder(run, tmp_path):
    assert "crowd.mp4: people/crowd.jsonl" in run("folder", ROOT / "samples", "people", 3)
    lines = (tmp_path / "people" / "crowd.jsonl").read_text().splitlines()
    assert [json.loads(line)["frame"] for line in lines] == [0, 1, 2]


def test_every_example_has_its_test():
    tested = {name.removeprefix("test_") for name in globals() if name.startswith("test_")}
    assert {path.stem for path in (ROOT / "examples").glob("*.py")} <= tested
