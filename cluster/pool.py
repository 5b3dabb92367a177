"""The driver's interface to workers, wherever they run: give a job to a worker, wait for events."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, Self

from cluster.jobs import Job
from cluster.worker import Outcome


@dataclass(frozen=True)
class Ready:
    """A worker has opened its model and waits for a job. machine: where it runs. about: its engine and model."""

    worker: int
    machine: str
    about: str


@dataclass(frozen=True)
class NotReady:
    """A worker could not open its model and has ended."""

    worker: int
    error: str


@dataclass(frozen=True)
class Finished:
    """A job has an outcome; its worker waits for the next job."""

    worker: int
    outcome: Outcome


@dataclass(frozen=True)
class Crashed:
    """A worker's process ended, which counts as a failed attempt of its job. cause: how it ended."""

    worker: int
    cause: str


@dataclass(frozen=True)
class Lost:
    """A worker's machine ended or cannot be reached, which does not count as an attempt of its job."""

    worker: int
    cause: str


Event = Ready | NotReady | Finished | Crashed | Lost


class Pool(Protocol):
    """Workers, each with a number that is never used again. A worker that has ended is replaced by a new one.

    wanted: the number of workers to keep running. Leaving the `with` block ends them all, running jobs included.
    """

    wanted: int

    def give(self, worker: int, job: Job) -> None:
        """Start a job on a worker whose last event was Ready or Finished."""

    def wait(self, seconds: float) -> Sequence[Event]:
        """The next events, as soon as there are any; empty after `seconds`."""
        ...

    def replace(self, worker: int) -> None:
        """End a worker that has no job and start another one."""

    def dismiss(self) -> None:
        """Reduce `wanted` by one: the worker of the last NotReady is not replaced."""

    def frames_running(self) -> int:
        """Frames done so far in the files of running jobs; the number may be some seconds old."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None: ...
