"""The driver's reaction to each event, with a pool that returns scripted events."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Self

import pytest

from cluster.driver import MAX_ATTEMPTS, MAX_LOSSES, Driver
from cluster.jobs import Job
from cluster.pool import Crashed, Event, Finished, Lost, NotReady, Ready
from cluster.store import NoSpaceError
from cluster.worker import Outcome
from core.errors import EngineError

DONE = Outcome(kind="done", frames=5)


def job(path: str, size_bytes: int = 1) -> Job:
    return Job(name=path, where=f"/{path}", path=path, size_bytes=size_bytes, version="1")


@dataclass
class ScriptedPool:
    """Workers on the named machines. answer: gives the event that follows when a worker gets a job."""

    machines: Sequence[str]
    answer: Callable[[int, str, Job], Event]
    given: list[tuple[str, str]] = field(default_factory=list)  # (job, machine)
    replaced: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.wanted = len(self.machines)
        self.machine_of = dict(enumerate(self.machines))
        self.events: deque[Event] = deque(Ready(n, machine, "fake") for n, machine in self.machine_of.items())

    def give(self, worker: int, job: Job) -> None:
        machine = self.machine_of[worker]
        self.given.append((job.path, machine))
        event = self.answer(worker, machine, job)
        self.events.append(event)
        if isinstance(event, Crashed | Lost):
            self.start(self.machine_of.pop(worker))

    def start(self, machine: str) -> None:
        number = max([*self.machine_of, *self.replaced, 0]) + 1 + len(self.given)
        self.machine_of[number] = machine
        self.events.append(Ready(number, machine, "fake"))

    def wait(self, seconds: float) -> Sequence[Event]:
        return [self.events.popleft()] if self.events else []

    def replace(self, worker: int) -> None:
        self.replaced.append(worker)
        self.start(self.machine_of.pop(worker))

    def dismiss(self) -> None:
        self.wanted -= 1

    def frames_running(self) -> int:
        return 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        pass


@dataclass
class Notes:
    """An Observer that records its calls."""

    ended: list[str] = field(default_factory=list)
    errors: dict[str, str] = field(default_factory=dict)
    retries: int = 0

    def started(self, worker: Ready) -> None:
        pass

    def not_started(self, error: str) -> None:
        pass

    def done(self, job: Job, outcome: Outcome) -> None:
        self.ended.append(job.path)

    def failed(self, job: Job, error: str, attempts: int) -> None:
        self.errors[job.path] = f"{error} ({attempts})"

    def retried(self, job: Job, error: str) -> None:
        self.retries += 1

    def tick(self, *, workers: int, running: int, frames_running: int) -> None:
        pass


def drive(pool: ScriptedPool, *names: str, discarded: list[str] | None = None) -> Notes:
    notes = Notes()
    driver = Driver(pool, notes, discard=(discarded if discarded is not None else []).append)
    driver.run([job(name) for name in names])
    return notes


def test_every_job_is_done_once_and_the_longest_begins():
    pool = ScriptedPool("ab", lambda worker, machine, job: Finished(worker, DONE))
    notes = Notes()
    Driver(pool, notes).run([job("short", 1), job("long", 9), job("middle", 5)])
    assert sorted(notes.ended) == ["long", "middle", "short"]
    assert [path for path, _ in pool.given] == ["long", "middle", "short"]


def test_a_file_that_fails_is_tried_elsewhere_then_put_aside():
    def answer(worker: int, machine: str, job: Job) -> Event:
        return Finished(worker, Outcome(kind="failed", error="bad") if job.path == "bad" else DONE)

    pool = ScriptedPool("abc", answer)
    notes = drive(pool, "bad", "x", "y", "z")
    assert notes.errors == {"bad": f"bad ({MAX_ATTEMPTS})"}
    assert notes.retries == MAX_ATTEMPTS - 1
    assert sorted(machine for path, machine in pool.given if path == "bad") == ["a", "b", "c"]
    assert sorted(notes.ended) == ["x", "y", "z"]


def test_where_there_is_no_elsewhere_it_is_tried_there_again():
    pool = ScriptedPool("a", lambda worker, machine, job: Finished(worker, Outcome(kind="failed", error="bad")))
    assert drive(pool, "bad").errors == {"bad": f"bad ({MAX_ATTEMPTS})"}


def test_a_file_that_kills_its_worker_three_times_stops_nobody():
    discarded: list[str] = []
    pool = ScriptedPool(
        "ab", lambda worker, machine, job: Crashed(worker, "died") if job.path == "bad" else Finished(worker, DONE)
    )
    notes = drive(pool, "bad", "x", "y", discarded=discarded)
    assert notes.errors == {"bad": f"its worker died ({MAX_ATTEMPTS})"}
    assert sorted(notes.ended) == ["x", "y"]
    assert discarded == [job("bad").prefix] * MAX_ATTEMPTS


def test_a_lost_machine_costs_its_file_no_attempt():
    losses = iter(range(MAX_LOSSES - 1))

    def answer(worker: int, machine: str, job: Job) -> Event:
        return Lost(worker, "gone") if next(losses, None) is not None else Finished(worker, DONE)

    notes = drive(ScriptedPool("ab", answer), "x")
    assert (notes.ended, notes.errors, notes.retries) == (["x"], {}, 0)


def test_a_file_that_takes_its_machine_with_it_every_time_ends_too():
    notes = drive(ScriptedPool("ab", lambda worker, machine, job: Lost(worker, "gone")), "x")
    assert notes.errors == {"x": f"its machine was lost {MAX_LOSSES} times: gone (0)"}


def test_a_harmed_worker_is_replaced():
    outcomes = iter([Outcome(kind="failed", error="GPU", replace_worker=True), DONE])
    pool = ScriptedPool("a", lambda worker, machine, job: Finished(worker, next(outcomes)))
    assert drive(pool, "x").ended == ["x"]
    assert pool.replaced == [0]


@pytest.mark.parametrize(("machines", "stops"), [("a", True), ("ab", False)])
def test_a_full_temporary_folder_stops_all_only_if_it_is_everybodys(machines, stops):
    def answer(worker: int, machine: str, job: Job) -> Event:
        return Finished(worker, Outcome(kind="scratch full", error="full") if machine == "a" else DONE)

    pool = ScriptedPool(machines, answer)
    if stops:
        with pytest.raises(NoSpaceError, match="full"):
            drive(pool, "x", "y")
    else:
        assert sorted(drive(pool, "x", "y").ended) == ["x", "y"]


def test_a_full_output_stops_all():
    pool = ScriptedPool("ab", lambda worker, machine, job: Finished(worker, Outcome(kind="output full", error="full")))
    with pytest.raises(NoSpaceError, match="full"):
        drive(pool, "x", "y")


def test_a_pool_none_of_whose_workers_can_start_is_an_error():
    pool = ScriptedPool("ab", lambda worker, machine, job: Finished(worker, DONE))
    pool.events = deque([NotReady(0, "no engine"), NotReady(1, "no engine")])
    with pytest.raises(EngineError, match="no worker could start: no engine"):
        drive(pool, "x")


def test_one_worker_that_cannot_start_is_done_without():
    pool = ScriptedPool("ab", lambda worker, machine, job: Finished(worker, DONE))
    pool.events.appendleft(NotReady(9, "no engine"))
    assert drive(pool, "x", "y").ended == ["x", "y"]
    assert pool.wanted == 1
