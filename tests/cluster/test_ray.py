"""The command on a real Ray cluster of two nodes of this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from tests.cluster.fakes import KILLS, SLEEPS, write_picture
from tests.cluster.nodes import Nodes, find_processes, ray_nodes
from tests.pipeline.fakes import write_clip
from tests.pipeline.onnx_models import blob_frame, write_blob_model
from tests.run_video.outcomes import WH, frames_of, position

pytest.importorskip("ray", reason="the extra `cluster` is not installed")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),  # the first worker of a cluster compiles the kernels, while the machine does other things
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc"),
]

ROOT = Path(__file__).parents[2]
FAKE = """
    import sys
    from cluster.__main__ import main
    from tests.cluster.fakes import open_pictures
    if __name__ == "__main__":
        sys.exit(main(open_pose=open_pictures))
"""


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    with ray_nodes(2) as two:
        yield two
    assert find_processes(two.environment["RAY_TMPDIR"]) == []


@pytest.fixture
def fake_driver(tmp_path: Path) -> Path:
    """A script that runs the command with PictureStep."""
    path = tmp_path / "driver.py"
    path.write_text(textwrap.dedent(FAKE))
    return path


@pytest.fixture
def start(nodes: Nodes) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts the command. The test ends it, or it is ended after the test."""
    with ExitStack() as stack:

        def run(*arguments: object, driver: Path | None = None) -> subprocess.Popen[str]:
            program = ["-m", "cluster"] if driver is None else [str(driver)]
            process = subprocess.Popen(
                [sys.executable, *program, *map(str, arguments), "--address", nodes.address],
                cwd=ROOT,
                env={**nodes.environment, "PYTHONPATH": str(ROOT)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            stack.enter_context(process)
            stack.callback(process.kill)  # before the wait that leaving the process's own block is
            return process

        yield run


def finish(process: subprocess.Popen[str], seconds: float = 600) -> tuple[int, list[str], list[str]]:
    try:
        out, err = process.communicate(timeout=seconds)
    finally:
        process.kill()
    return process.returncode, out.splitlines(), err.splitlines()


def records(out: Path) -> list[dict]:
    return [json.loads(path.read_text()) for path in (out / ".higherpose" / "records").iterdir()]


def wait_until(true: Callable[[], bool], seconds: float = 400) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_file_that_kills_its_worker_lies_in_failed_and_stops_nobody(start, fake_driver, tmp_path):
    write_picture(tmp_path / "in" / "kills.png", 1, what=KILLS)
    for index in range(10):
        write_picture(tmp_path / "in" / f"{index}.png", index)
    out = tmp_path / "out"
    status, _, stderr = finish(start(tmp_path / "in", "--out", out, driver=fake_driver))
    assert status == 1, stderr
    assert stderr[-1].startswith("python -m cluster: 1 of 11 files failed"), stderr
    (failure,) = [json.loads(line) for line in (out / "failed.jsonl").read_text().splitlines()]
    assert (failure["source"], failure["attempts"]) == (str(tmp_path / "in" / "kills.png"), 3)
    assert failure["error"].startswith("its worker died: ")
    assert len(records(out)) == 10
    summary = json.loads((out / "summary.json").read_text())
    assert (summary["files"], summary["done"], summary["failed"], summary["left"]) == (11, 10, 1, 0)
    assert (summary["machines"], summary["retries"]) == (2, 2)


def test_a_driver_that_was_killed_and_started_again_does_nothing_twice(start, fake_driver, tmp_path):
    for index in range(12):
        write_picture(tmp_path / "in" / f"{index}.png", index, what=SLEEPS)
    out = tmp_path / "out"
    folder = out / ".higherpose" / "records"
    first = start(tmp_path / "in", "--out", out, driver=fake_driver)
    wait_until(lambda: folder.is_dir() and len(list(folder.iterdir())) >= 3)
    first.kill()
    first.communicate()
    done = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert all(json.loads(path.read_text()) for path in folder.iterdir())
    status, _, stderr = finish(start(tmp_path / "in", "--out", out, driver=fake_driver))
    assert status == 0, stderr
    assert len(records(out)) == 12
    assert all((folder / name).stat().st_mtime_ns == at for name, at in done.items())
    summary = json.loads((out / "summary.json").read_text())
    assert summary["skipped"] >= len(done)
    assert summary["done"] + summary["skipped"] == 12
    assert not any((out / ".higherpose" / "partial").iterdir())


def test_a_cluster_of_another_version_is_refused(start, tmp_path):
    write_picture(tmp_path / "a.png", 1)
    driver = tmp_path / "driver.py"
    driver.write_text("import ray\nray.__version__ = '1.0.0'\n" + textwrap.dedent(FAKE))
    status, _, stderr = finish(start(tmp_path / "a.png", "--out", tmp_path / "out", driver=driver))
    assert status == 2
    assert len(stderr) == 1, stderr
    assert "Version mismatch" in stderr[0]
    assert "install the same versions" in stderr[0]


def test_a_node_killed_in_the_middle_costs_nothing(nodes, start, fake_driver, tmp_path):
    for index in range(14):
        write_picture(tmp_path / "in" / f"{index}.png", index, what=SLEEPS)
    out = tmp_path / "out"
    folder = out / ".higherpose" / "records"
    driver = start(tmp_path / "in", "--out", out, driver=fake_driver)
    # both nodes work
    wait_until(lambda: len(list((out / ".higherpose").glob("partial/*-*"))) == 2 and len(list(folder.iterdir())) >= 2)
    nodes.kill(1)
    try:
        status, _, stderr = finish(driver)
        assert status == 0, stderr
        done = records(out)
        assert sorted(record["name"] for record in done) == sorted(map(str, (tmp_path / "in").iterdir()))
        for record in done:
            (line,) = (out / record["results"][0]).read_text().splitlines()
            assert json.loads(line)["people"][0]["keypoints"][0][0] == int(Path(record["name"]).stem)
        summary = json.loads((out / "summary.json").read_text())
        assert (summary["done"], summary["failed"], summary["retries"]) == (14, 0, 0)
        assert not any((out / ".higherpose" / "partial").iterdir())
        assert not (out / "failed.jsonl").exists()
    finally:
        nodes.replace(1)


def test_results_equal_those_of_run_video(start, tmp_path):
    """Byte for byte: same engine, one core each."""
    parquet = pytest.importorskip("pyarrow.parquet")
    model = write_blob_model(tmp_path / "blobs.onnx")
    for name, steps in (("a", 12), ("deep/b", 7), ("deep/c", 9)):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        write_clip(tmp_path / "in" / f"{name}.mp4", steps, wh=WH, picture=walking_frame)
    options = ["--model", str(model), "--engine", "onnxruntime", "--min-score", "0.1"]
    status, _, stderr = finish(
        start(tmp_path / "in", "--out", tmp_path / "out", "--table", "parquet", "--save", *options)
    )
    assert status == 0, stderr
    core = min(os.sched_getaffinity(0))
    for clip in sorted((tmp_path / "in").rglob("*.mp4")):
        alone = tmp_path / "alone"
        alone.mkdir(exist_ok=True)
        command = [sys.executable, "run_video.py", str(clip), *options, "--save", str(alone / "v.mp4")]
        subprocess.run(
            [*command, "--json", str(alone / "a.jsonl"), "--table", str(alone / "a.parquet")],
            cwd=ROOT,
            check=True,
            stdout=subprocess.DEVNULL,
            preexec_fn=lambda: os.sched_setaffinity(0, {core}),
        )
        result = tmp_path / "out" / clip.relative_to("/")
        assert Path(f"{result}.jsonl").read_bytes() == (alone / "a.jsonl").read_bytes()
        assert parquet.read_table(f"{result}.parquet").equals(parquet.read_table(alone / "a.parquet"))
        assert len(frames_of(result)) == len(frames_of(alone / "v.mp4"))


def walking_frame(index: int) -> np.ndarray:
    return blob_frame(WH, [(*position(index), 0.5)])
