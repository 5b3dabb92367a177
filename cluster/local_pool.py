"""Workers as processes of this machine. They end when the driver ends, even if it is killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from multiprocessing.sharedctypes import Synchronized
from typing import Self

from cluster.cores import Share
from cluster.jobs import Job
from cluster.pool import Crashed, Event, Finished, NotReady, Ready
from cluster.scratch import sweep
from cluster.worker import FileWorker, Outcome, Setup
from core.errors import describe

MACHINE = "this machine"
STOP_S = 5.0  # a worker without a job ends by itself; after this time it is killed

Message = Ready | NotReady | Outcome


@dataclass(eq=False)
class _Worker:
    process: SpawnProcess
    pipe: Connection
    frames: Synchronized[int]
    environment: Mapping[str, str] = field(default_factory=dict)
    opened: bool = False


class LocalPool:
    """`wanted` processes. environments: variables for one worker each, such as the one GPU that it may see."""

    def __init__(self, setup: Setup, wanted: int, environments: Sequence[Mapping[str, str]] = ()) -> None:
        self.wanted = wanted
        self._setup = setup
        self._free: list[Mapping[str, str]] = list(environments)
        self._workers: dict[int, _Worker] = {}
        self._number = 0
        # "spawn": a fork would copy the locks of the driver's threads, and hold its lock on the output folder
        self._context = multiprocessing.get_context("spawn")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        for worker in self._workers.values():
            worker.process.kill()
        for number in list(self._workers):
            self._remove(number)
        sweep()

    def give(self, worker: int, job: Job) -> None:
        with suppress(OSError):  # the worker has died; `wait` reports it
            self._workers[worker].pipe.send(job)

    def wait(self, seconds: float) -> Sequence[Event]:
        while len(self._workers) < self.wanted:
            self._start()
        by_handle: dict[object, int] = {}
        for number, worker in self._workers.items():
            by_handle[worker.pipe] = number
            by_handle[worker.process.sentinel] = number
        ready = wait([handle for handle in by_handle if isinstance(handle, Connection | int)], timeout=seconds)
        return [
            event for number in dict.fromkeys(by_handle[handle] for handle in ready) for event in self._receive(number)
        ]

    def replace(self, worker: int) -> None:
        gone = self._workers[worker]
        with suppress(OSError):
            gone.pipe.send(None)
        gone.process.join(STOP_S)
        self._remove(worker)

    def dismiss(self) -> None:
        self.wanted -= 1

    def frames_running(self) -> int:
        return sum(worker.frames.value for worker in self._workers.values())

    def _start(self) -> None:
        ours, theirs = self._context.Pipe()
        frames = self._context.RawValue("q", 0)
        environment = self._free.pop(0) if self._free else {}
        self._number += 1
        process = self._context.Process(
            target=_work,
            args=(self._number, self._setup, theirs, frames, dict(environment)),
            name=f"pose-worker-{self._number}",
            daemon=True,
        )
        process.start()
        theirs.close()
        self._workers[self._number] = _Worker(process, ours, frames, environment)

    def _receive(self, number: int) -> list[Event]:
        """The worker's message as an event; if it sent none, the event of its death."""
        worker = self._workers[number]
        try:
            message: Message | None = worker.pipe.recv() if worker.pipe.poll() else None
        except (EOFError, OSError):
            message = None
        if isinstance(message, Outcome):
            return [Finished(number, message)]
        if isinstance(message, Ready):
            worker.opened = True
            return [message]
        if message is None:
            worker.process.join(STOP_S)  # the pipe closes a moment before the process ends
        self._remove(number)
        if isinstance(message, NotReady):
            return [message]
        cause = _exit_cause(worker.process.exitcode)
        return [Crashed(number, cause) if worker.opened else NotReady(number, f"a worker {cause} while it started")]

    def _remove(self, number: int) -> None:
        worker = self._workers.pop(number)
        if worker.process.is_alive():
            worker.process.kill()
        worker.process.join()
        worker.pipe.close()
        if worker.environment:
            self._free.append(worker.environment)


def _exit_cause(status: int | None) -> str:
    if status is not None and status < 0:
        try:
            return f"was killed by {signal.Signals(-status).name}"
        except ValueError:
            return f"was killed by signal {-status}"
    return f"ended with status {status}"


def _work(
    number: int, setup: Setup, pipe: Connection, frames: Synchronized[int], environment: Mapping[str, str]
) -> None:
    """What a worker's process runs."""
    os.environ.update(environment)  # before anything calls the GPU driver
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of a terminal; the driver handles it
    threading.Thread(target=_die_with_parent, name="parent", daemon=True).start()

    def count(done: int) -> None:
        frames.value = done

    try:
        share = Share(setup.cores) if setup.cores else None
        worker = FileWorker(setup, count)
    except Exception as error:  # the driver reports it
        pipe.send(NotReady(number, describe(error)))
        return
    with worker:
        pipe.send(Ready(number, MACHINE, worker.about))
        while True:
            try:
                job: Job | None = pipe.recv()
            except (EOFError, OSError):
                return
            if job is None:
                return
            pipe.send(worker.run(job))
    del share  # held until here


def _die_with_parent() -> None:
    """End this process when the driver ends: the next driver processes the same files."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
