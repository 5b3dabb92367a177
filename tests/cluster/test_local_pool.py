"""Real processes of this machine, with a fake step."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from cluster.driver import Driver
from cluster.inputs import find_jobs
from cluster.jobs import Recipe
from cluster.local_pool import LocalPool
from cluster.local_store import LocalStore
from cluster.quarantine import Quarantine, plan
from cluster.worker import OpenPose, Setup
from core.errors import EngineError
from tests.cluster.fakes import KILLS, RAISES, open_deadly, open_nothing, open_pictures, write_picture
from tests.cluster.test_driver import Notes

RECIPE = Recipe(options={"min_score": 0.2})


def run(sources: Path, out: Path, *, workers: int = 2, open_pose: OpenPose = open_pictures) -> Notes:
    store = LocalStore(out)
    notes = Notes()
    with store.locked() as token:
        what = plan(
            find_jobs([str(sources)], out=str(out)), RECIPE, store.contents(), Quarantine(store), retry_failed=False
        )
        setup = Setup(recipe=RECIPE, store=store, token=token, open_pose=open_pose, cores=1)
        with LocalPool(setup, workers) as pool:
            Driver(pool, notes, discard=store.discard).run(what.todo)
    assert list((out / ".higherpose" / "partial").iterdir()) == []
    return notes


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_file_has_its_result_and_its_record(tmp_path):
    sources, out = tmp_path / "in", tmp_path / "out"
    for index in range(6):
        write_picture(sources / f"{index % 2}" / f"{index}.png", index)
    notes = run(sources, out)
    assert len(notes.ended) == len(set(notes.ended)) == 6
    for index in range(6):
        name = sources / f"{index % 2}" / f"{index}.png"
        (line,) = lines(out / name.relative_to("/").with_name(f"{index}.png.jsonl"))
        assert line["source"] == str(name)
        assert line["people"][0]["keypoints"][0][:2] == [index, 0]
    assert len(list((out / ".higherpose" / "records").iterdir())) == 6
    assert run(sources, out).ended == []  # nothing is left to do


def test_a_file_that_changes_is_done_again_and_so_is_a_result_that_was_deleted(tmp_path):
    sources, out = tmp_path / "in", tmp_path / "out"
    paths = [write_picture(sources / f"{index}.png", index) for index in range(3)]
    run(sources, out)
    write_picture(paths[0], 77)
    os.utime(paths[0], ns=(1, 1))
    (out / paths[2].relative_to("/").with_name("2.png.jsonl")).unlink()
    assert sorted(run(sources, out).ended) == [p.relative_to("/").as_posix() for p in (paths[0], paths[2])]
    (line,) = lines(out / paths[0].relative_to("/").with_name("0.png.jsonl"))
    assert line["people"][0]["keypoints"][0][0] == 77
    assert len(list((out / ".higherpose" / "records").iterdir())) == 3  # the stale one is gone


def test_a_file_that_kills_its_worker_and_one_that_fails_stop_nobody(tmp_path):
    sources, out = tmp_path / "in", tmp_path / "out"
    write_picture(sources / "kills.png", 1, what=KILLS)
    write_picture(sources / "raises.png", 1, what=RAISES)
    (sources / "broken.png").write_bytes(b"no picture")
    for index in range(4):
        write_picture(sources / f"{index}.png", index)
    notes = run(sources, out)
    assert len(notes.ended) == 4
    errors = {Path(path).name: error for path, error in notes.errors.items()}
    assert errors["kills.png"] == "its worker was killed by SIGKILL (3)"
    assert "infer failed on frame 0 of" in errors["raises.png"]
    assert "ZeroDivisionError: as asked" in errors["raises.png"]
    assert "broken.png is not a readable image" in errors["broken.png"]


@pytest.mark.parametrize(
    ("open_pose", "message"), [(open_nothing, "no engine here"), (open_deadly, "ended with status 7 while it started")]
)
def test_workers_that_cannot_start_end_the_run(tmp_path, open_pose, message):
    write_picture(tmp_path / "in" / "a.png", 1)
    with pytest.raises(EngineError, match=message):
        run(tmp_path / "in", tmp_path / "out", open_pose=open_pose)


def is_running(pid: str) -> bool:
    """False also for a zombie: an orphan that has ended may stay in the process table until it is reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_workers_end_with_a_driver_that_is_killed(tmp_path):
    """Also checks that the next driver finds no partial results."""
    write_picture(tmp_path / "in" / "a.png", 1, what=30)
    program = f"""
        from pathlib import Path
        from tests.cluster.test_local_pool import run
        if __name__ == "__main__":
            run(Path({str(tmp_path / "in")!r}), Path({str(tmp_path / "out")!r}), workers=1)
    """
    script = tmp_path / "driver.py"
    script.write_text(textwrap.dedent(program))
    driver = subprocess.Popen(
        [sys.executable, str(script)], env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    )
    partial = tmp_path / "out" / ".higherpose" / "partial"
    deadline = time.monotonic() + 60
    while not (partial.is_dir() and any(partial.glob("*-*"))) and time.monotonic() < deadline:
        time.sleep(0.01)
    children = Path(f"/proc/{driver.pid}/task/{driver.pid}/children").read_text().split()
    driver.kill()
    driver.wait()
    deadline = time.monotonic() + 10
    while any(is_running(child) for child in children) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert [child for child in children if is_running(child)] == []
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".higherpose"]
    assert len(run(tmp_path / "in", tmp_path / "out").ended) == 1
