"""What the driver knows of workers, wherever they run: it gives a job to a worker and waits for events."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, Self

from cluster.jobs import Job
from cluster.worker import Outcome


@dataclass(frozen=True)
class Ready:
    """A worker has its model and waits for a job. place: the machine it runs on. about: what runs there."""

    worker: int
    place: str
    about: str


@dataclass(frozen=True)
class NotReady:
    """A worker could not open its model, and is gone."""

    worker: int
    error: str


@dataclass(frozen=True)
class Finished:
    """A job has an outcome; its worker waits for the next one."""

    worker: int
    outcome: Outcome


@dataclass(frozen=True)
class Crashed:
    """A worker's process ended: its job is to blame. words: how it ended."""

    worker: int
    words: str


@dataclass(frozen=True)
class Lost:
    """A worker's machine is gone, or cannot be reached: its job is not to blame."""

    worker: int
    words: str


Event = Ready | NotReady | Finished | Crashed | Lost


class Pool(Protocol):
    """Workers, each with a number that is never used again. A worker that is gone is replaced by a new one.

    wanted: how many there should be now. Leaving the `with` block ends them all, whatever they are doing.
    """

    wanted: int

    def give(self, worker: int, job: Job) -> None:
        """To a worker that is ready, or has finished."""

    def wait(self, seconds: float) -> Sequence[Event]:
        """What happened, as soon as something has; nothing after `seconds`."""
        ...

    def replace(self, worker: int) -> None:
        """End a worker that has no job, and start another."""

    def dismiss(self) -> None:
        """Have one worker less from now on: the one that was last not ready is not replaced."""

    def frames_running(self) -> int:
        """Frames done so far of the files that are being worked on; some seconds old."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None: ...
