"""What the driver costs a file: many tiny pictures, a fake step; against a plain loop over the same pipeline and sinks.

python -m benchmarks.cluster --files 100 2000
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from contextlib import closing
from pathlib import Path

from cluster.driver import Driver
from cluster.inputs import find_jobs
from cluster.jobs import Job, Recipe
from cluster.local_pool import LocalPool
from cluster.local_store import LocalStore
from cluster.pool import Event
from cluster.worker import Setup
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


def clustered(jobs: list[Job], out: Path, *, workers: int = 1) -> float:
    """Seconds for all files by the driver and processes, from the moment that all workers are ready."""
    store = LocalStore(out)
    with store.held() as token:
        setup = Setup(recipe=RECIPE, store=store, token=token, open_pose=open_pictures, cores=1)
        with LocalPool(setup, workers) as pool:
            ready: list[Event] = []
            while len(ready) < workers:
                ready += pool.wait(1)
            driver = Driver(pool, notes := Notes(), discard=store.discard)
            for event in ready:
                driver._take(event)
            started = time.perf_counter()
            driver.run(jobs)
            seconds = time.perf_counter() - started
    assert len(notes.ended) == len(jobs)
    return seconds


def measure(count: int) -> tuple[float, float]:
    """Milliseconds a file: the plain loop, and the driver with one worker."""
    folder = Path(tempfile.mkdtemp(prefix="higherpose-overhead-"))
    try:
        for index in range(count):
            write_picture(folder / "in" / f"{index}.png", index % 200)
        jobs = find_jobs([str(folder / "in")], out=str(folder / "out"))
        plain_s = plain_loop(jobs, folder / "plain")
        return plain_s / count * 1e3, clustered(jobs, folder / "out") / count * 1e3
    finally:
        shutil.rmtree(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--files", type=int, nargs="+", default=[100, 2000])
    for count in parser.parse_args().files:
        plain_ms, driver_ms = measure(count)
        print(
            f"{count} files: {plain_ms:.1f} ms a file in a plain loop, {driver_ms:.1f} ms by the driver: "
            f"{driver_ms - plain_ms:.1f} ms overhead"
        )


if __name__ == "__main__":
    main()
