"""The driver: a queue of jobs, and what becomes of each. It knows nothing of processes, Ray or files."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

from cluster.jobs import Job
from cluster.pool import Crashed, Event, Finished, Lost, NotReady, Pool, Ready
from cluster.store import NoSpaceError
from cluster.worker import Outcome
from core.errors import EngineError

ATTEMPTS = 3  # then a file is put aside
LOSSES = 10  # machines a file may lose under it: one that takes its machine with it every time must not go on for ever
WAIT_S = 0.5  # at most, between two looks at the watch


class Watch(Protocol):
    """What is told while the driver works."""

    def started(self, worker: Ready) -> None: ...

    def not_started(self, error: str) -> None: ...

    def done(self, job: Job, outcome: Outcome) -> None: ...

    def failed(self, job: Job, error: str, attempts: int) -> None:
        """A file is put aside."""

    def retried(self, job: Job, error: str) -> None: ...

    def tick(self, *, workers: int, running: int, frames_running: int) -> None:
        """About twice a second."""


@dataclass(eq=False)
class _Task:
    job: Job
    attempts: int = 0
    losses: int = 0
    places: set[str] = field(default_factory=set)  # where it failed


class Driver:
    """Gives every job to a worker until it is done or has failed ATTEMPTS times; the next attempt is made elsewhere."""

    def __init__(self, pool: Pool, watch: Watch, *, discard: Callable[[str], None] = lambda place: None) -> None:
        """discard: called with the place of a job whose worker is gone."""
        self._pool, self._watch, self._discard = pool, watch, discard
        self._places: dict[int, str] = {}  # of the workers that are there
        self._idle: list[int] = []
        self._running: dict[int, _Task] = {}
        self._queue: deque[_Task] = deque()
        self._not_ready = 0

    def run(self, jobs: Iterable[Job]) -> None:
        """Returns when no job is left.

        Raises EngineError if no worker can be had, NoSpaceError when the output is full; what is finished stays.
        """
        # the longest first: the last to end are then short
        self._queue.extend(_Task(job) for job in sorted(jobs, key=lambda job: -job.size_bytes))
        told_at = 0.0
        while self._queue or self._running:
            self._give()
            for event in self._pool.wait(WAIT_S):
                self._take(event)
            if time.monotonic() - told_at >= WAIT_S:
                told_at = time.monotonic()
                self._tell()
        self._tell()

    def _give(self) -> None:
        for worker in list(self._idle):
            task = self._next_for(self._places[worker])
            if task is not None:
                self._idle.remove(worker)
                self._running[worker] = task
                self._pool.give(worker, task.job)

    def _next_for(self, place: str) -> _Task | None:
        """The first job that has not failed there, or has failed everywhere."""
        places = set(self._places.values())
        for index, task in enumerate(self._queue):
            if place not in task.places or places <= task.places:
                del self._queue[index]
                return task
        return None

    def _take(self, event: Event) -> None:
        match event:
            case Ready(worker, place, _):
                self._places[worker] = place
                self._idle.append(worker)
                self._not_ready = 0
                self._watch.started(event)
            case NotReady(_, error):
                self._count_out(error)
            case Finished(worker, outcome):
                self._finish(worker, outcome)
            case Crashed(worker, words):
                task, place = self._leave(worker)
                if task is not None:
                    self._blame(task, place, f"its worker {words}")
            case Lost(worker, words):
                task, _ = self._leave(worker)
                if task is not None:
                    task.losses += 1
                    if task.losses >= LOSSES:
                        self._watch.failed(task.job, f"its machine was lost {LOSSES} times: {words}", task.attempts)
                    else:
                        self._queue.appendleft(task)

    def _finish(self, worker: int, outcome: Outcome) -> None:
        task = self._running.pop(worker)
        place = self._places[worker]
        if outcome.kind == "no space" or (outcome.kind == "no room" and set(self._places.values()) == {place}):
            raise NoSpaceError(outcome.error)
        if outcome.spent:
            del self._places[worker]
            self._pool.replace(worker)
        else:
            self._idle.append(worker)
        if outcome.kind == "done":
            self._watch.done(task.job, outcome)
        else:
            self._blame(task, place, outcome.error)

    def _blame(self, task: _Task, place: str, error: str) -> None:
        task.attempts += 1
        task.places.add(place)
        if task.attempts >= ATTEMPTS:
            self._watch.failed(task.job, error, task.attempts)
        else:
            self._watch.retried(task.job, error)
            self._queue.append(task)

    def _leave(self, worker: int) -> tuple[_Task | None, str]:
        """A worker is gone: its job, if it had one, and its place."""
        task = self._running.pop(worker, None)
        if worker in self._idle:
            self._idle.remove(worker)
        if task is not None:
            self._discard(task.job.place)
        return task, self._places.pop(worker, "")

    def _count_out(self, error: str) -> None:
        """A worker cannot start. Another may: but a pool none of whose workers can is no pool."""
        self._watch.not_started(error)
        self._not_ready += 1
        if self._not_ready >= ATTEMPTS or not self._places:
            self._not_ready = 0
            self._pool.dismiss()
        if self._pool.wanted < 1:
            raise EngineError(f"no worker could start: {error}")

    def _tell(self) -> None:
        self._watch.tick(
            workers=len(self._places), running=len(self._running), frames_running=self._pool.frames_running()
        )
