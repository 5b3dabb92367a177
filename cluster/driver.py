"""The driver: a queue of jobs, their assignment to workers, retries. It does not depend on processes, Ray or files."""

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

MAX_ATTEMPTS = 3  # then a file goes to quarantine
MAX_LOSSES = 10  # lost machines per file: a file that crashes every machine must not be retried for ever
WAIT_S = 0.5  # between two progress reports


class Observer(Protocol):
    """Gets the events of a run."""

    def started(self, worker: Ready) -> None: ...

    def not_started(self, error: str) -> None: ...

    def done(self, job: Job, outcome: Outcome) -> None: ...

    def failed(self, job: Job, error: str, attempts: int) -> None:
        """A file goes to quarantine."""

    def retried(self, job: Job, error: str) -> None: ...

    def tick(self, *, workers: int, running: int, frames_running: int) -> None:
        """Progress, about twice a second. An error that it raises ends the run."""


@dataclass(eq=False)
class _Task:
    job: Job
    attempts: int = 0
    losses: int = 0
    machines: set[str] = field(default_factory=set)  # on which it failed


class Driver:
    """Assigns each job to workers until it is done or has failed MAX_ATTEMPTS times; retries prefer other machines."""

    def __init__(self, pool: Pool, observer: Observer, *, discard: Callable[[str], None] = lambda prefix: None) -> None:
        """discard: removes the partial results with a job's prefix; called when its worker is gone."""
        self._pool, self._observer, self._discard = pool, observer, discard
        self._machines: dict[int, str] = {}  # of each running worker
        self._idle: list[int] = []
        self._running: dict[int, _Task] = {}
        self._queue: deque[_Task] = deque()
        self._not_ready = 0

    def run(self, jobs: Iterable[Job]) -> None:
        """Returns when no job is left.

        Raises EngineError if no worker can start, NoSpaceError if the output is full; finished results are kept.
        """
        # the longest first, so that only short ones run at the end
        self._queue.extend(_Task(job) for job in sorted(jobs, key=lambda job: -job.size_bytes))
        reported_at = 0.0
        while self._queue or self._running:
            self._assign()
            for event in self._pool.wait(WAIT_S):
                self._handle(event)
            if time.monotonic() - reported_at >= WAIT_S:
                reported_at = time.monotonic()
                self._report_progress()
        self._report_progress()

    def _assign(self) -> None:
        for worker in list(self._idle):
            task = self._next_for(self._machines[worker])
            if task is not None:
                self._idle.remove(worker)
                self._running[worker] = task
                self._pool.give(worker, task.job)

    def _next_for(self, machine: str) -> _Task | None:
        """The first job that has not failed on this machine, or has failed on all of them."""
        machines = set(self._machines.values())
        for index, task in enumerate(self._queue):
            if machine not in task.machines or machines <= task.machines:
                del self._queue[index]
                return task
        return None

    def _handle(self, event: Event) -> None:
        match event:
            case Ready(worker, machine, _):
                self._machines[worker] = machine
                self._idle.append(worker)
                self._not_ready = 0
                self._observer.started(event)
            case NotReady(_, error):
                self._handle_not_ready(error)
            case Finished(worker, outcome):
                self._finish(worker, outcome)
            case Crashed(worker, cause):
                task, machine = self._remove_worker(worker)
                if task is not None:
                    self._record_failure(task, machine, f"its worker {cause}")
            case Lost(worker, cause):
                task, _ = self._remove_worker(worker)
                if task is not None:
                    task.losses += 1
                    if task.losses >= MAX_LOSSES:
                        self._observer.failed(
                            task.job, f"its machine was lost {MAX_LOSSES} times: {cause}", task.attempts
                        )
                    else:
                        self._queue.appendleft(task)

    def _finish(self, worker: int, outcome: Outcome) -> None:
        task = self._running.pop(worker)
        machine = self._machines[worker]
        only_machine = set(self._machines.values()) == {machine}
        if outcome.kind == "output full" or (outcome.kind == "scratch full" and only_machine):
            raise NoSpaceError(outcome.error)
        if outcome.replace_worker:
            del self._machines[worker]
            self._pool.replace(worker)
        else:
            self._idle.append(worker)
        if outcome.kind == "done":
            self._observer.done(task.job, outcome)
        else:
            self._record_failure(task, machine, outcome.error)

    def _record_failure(self, task: _Task, machine: str, error: str) -> None:
        task.attempts += 1
        task.machines.add(machine)
        if task.attempts >= MAX_ATTEMPTS:
            self._observer.failed(task.job, error, task.attempts)
        else:
            self._observer.retried(task.job, error)
            self._queue.append(task)

    def _remove_worker(self, worker: int) -> tuple[_Task | None, str]:
        """Forget a worker that is gone. Returns its job, None if it had none, and its machine."""
        task = self._running.pop(worker, None)
        if worker in self._idle:
            self._idle.remove(worker)
        if task is not None:
            self._discard(task.job.prefix)
        return task, self._machines.pop(worker, "")

    def _handle_not_ready(self, error: str) -> None:
        """A worker cannot start; another one may. If MAX_ATTEMPTS in a row or none can, expect one worker less."""
        self._observer.not_started(error)
        self._not_ready += 1
        if self._not_ready >= MAX_ATTEMPTS or not self._machines:
            self._not_ready = 0
            self._pool.dismiss()
        if self._pool.wanted < 1:
            raise EngineError(f"no worker could start: {error}")

    def _report_progress(self) -> None:
        self._observer.tick(
            workers=len(self._machines), running=len(self._running), frames_running=self._pool.frames_running()
        )
