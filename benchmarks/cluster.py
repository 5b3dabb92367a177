"""Overhead of the cluster driver per file: many tiny pictures and a fake step, compared with a plain loop.

The loop runs the same pipeline and sinks.

python -m benchmarks.cluster --files 100 2000
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Self

from cluster.arguments import build_parser, recipe_of
from cluster.driver import Driver
from cluster.inputs import find_jobs
from cluster.jobs import Job, Recipe
from cluster.local_pool import LocalPool
from cluster.local_store import LocalStore
from cluster.pool import Event
from cluster.recipes import open_pose
from cluster.worker import OpenPose, Setup
from engine.onnx_runner import usable_cores
from pipeline import open_source
from pipeline.sinks.outputs import Outputs, open_sinks
from pipeline.stats import Recorder
from tests.cluster.fakes import open_pictures, write_picture
from tests.cluster.test_driver import Notes

RECIPE = Recipe()


def plain_loop(jobs: list[Job], out: Path) -> float:
    """Seconds for all files, one after another in this process, without records."""
    out.mkdir()
    pose = open_pictures(RECIPE)
    started = time.perf_counter()
    for number, job in enumerate(jobs):
        recorder = Recorder()
        outputs = Outputs(open_sinks(save=None, json=out / f"{number}.jsonl", show=None), recorder)
        with closing(pose.run(open_source(job.where), recorder=recorder)) as results:
            for result in results:
                outputs.write(result)
        outputs.close()
    return time.perf_counter() - started


def clustered(
    jobs: list[Job], out: Path, *, workers: int = 1, cores: int = 1, recipe: Recipe = RECIPE, open_pose: OpenPose
) -> tuple[float, Notes]:
    """Seconds for all files by the driver and processes, from the moment that all workers are ready."""
    store = LocalStore(out)
    with store.locked() as token:
        setup = Setup(recipe=recipe, store=store, token=token, open_pose=open_pose, cores=cores)
        with LocalPool(setup, workers) as pool:
            ready: list[Event] = []
            while len(ready) < workers:
                ready += pool.wait(1)
            notes = Notes()
            driver = Driver(Readied(pool, ready), notes, discard=store.discard)
            started = time.perf_counter()
            driver.run(jobs)
            seconds = time.perf_counter() - started
    assert len(notes.ended) == len(jobs), notes.errors
    return seconds, notes


class Readied:
    """A pool whose first events were already received, so that the start of its workers is not measured."""

    def __init__(self, pool: LocalPool, events: list[Event]) -> None:
        self._pool, self._events = pool, events
        self.wanted = pool.wanted
        self.give, self.replace, self.dismiss = pool.give, pool.replace, pool.dismiss
        self.frames_running = pool.frames_running

    def wait(self, seconds: float) -> Sequence[Event]:
        events, self._events = self._events, []
        return events or self._pool.wait(seconds)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        pass


def side_by_side(clip: Path, rounds: int, copies: int) -> None:
    """Print the times of one worker with all cores and of one worker per core, alternating, on copies of a clip."""
    cores = usable_cores()
    folder = Path(tempfile.mkdtemp(prefix="higherpose-side-"))
    try:
        (folder / "in").mkdir()
        for index in range(copies):
            shutil.copy(clip, folder / "in" / f"{index}{clip.suffix}")
        jobs = find_jobs([str(folder / "in")], out=str(folder / "out"))
        arguments = build_parser().parse_args([str(folder / "in"), "--out", str(folder / "out")])
        recipe = recipe_of(arguments)
        for number in range(rounds):
            one_s, _ = clustered(jobs, folder / f"one{number}", cores=cores, recipe=recipe, open_pose=open_pose)
            each_s, _ = clustered(
                jobs, folder / f"each{number}", workers=cores, cores=1, recipe=recipe, open_pose=open_pose
            )
            print(
                f"{copies} x {clip.name}: one worker with {cores} cores {one_s:.2f} s, {cores} workers with one each "
                f"{each_s:.2f} s: {one_s / each_s:.2f} times as fast"
            )
    finally:
        shutil.rmtree(folder)


def measure(count: int) -> tuple[float, float]:
    """Milliseconds per file of the plain loop, and of the driver with one worker."""
    folder = Path(tempfile.mkdtemp(prefix="higherpose-overhead-"))
    try:
        for index in range(count):
            write_picture(folder / "in" / f"{index}.png", index % 200)
        jobs = find_jobs([str(folder / "in")], out=str(folder / "out"))
        plain_s = plain_loop(jobs, folder / "plain")
        driver_s, _ = clustered(jobs, folder / "out", open_pose=open_pictures)
        return plain_s / count * 1e3, driver_s / count * 1e3
    finally:
        shutil.rmtree(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, nargs="*", default=[100, 2000], help="numbers of tiny files, fake step")
    parser.add_argument("--clip", type=Path, help="a video: one worker with all cores against one worker a core")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--copies", type=int, default=2)
    arguments = parser.parse_args()
    for count in arguments.files:
        plain_ms, driver_ms = measure(count)
        print(
            f"{count} files: {plain_ms:.1f} ms a file in a plain loop, {driver_ms:.1f} ms by the driver: "
            f"{driver_ms - plain_ms:.1f} ms overhead"
        )
    if arguments.clip is not None:
        side_by_side(arguments.clip, arguments.rounds, arguments.copies)


if __name__ == "__main__":
    main()
