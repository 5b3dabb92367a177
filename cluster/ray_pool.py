"""Workers as Ray actors: one per GPU or group of cores, on every machine of a cluster. Ray is imported when used.

Only jobs and outcomes are sent through Ray, some hundred bytes each. A model file is sent once to each machine.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self, cast

from cluster.cores import Share
from cluster.jobs import Job
from cluster.models import unpack_model
from cluster.pool import Crashed, Event, Finished, Lost, NotReady, Ready
from cluster.worker import FileWorker, Outcome, Setup
from core.errors import EngineError, describe

if TYPE_CHECKING:
    from ray import ObjectRef

ROOT = Path(__file__).resolve().parents[1]
# The folders that a worker needs. Nothing else of a checkout is sent: it may hold a user's videos.
WORKER_FOLDERS = ("cluster", "commands", "core", "engine", "evaluation", "export", "kernels", "models", "pipeline")
POLL_EVERY_S = 5.0  # of the list of machines and the number of frames done
REACH_S = 5.0  # timeout of the first connection; Ray itself would try for minutes
RAY_PORT, CLIENT_PORT = 6379, 10001

Files = Mapping[str, bytes]


@dataclass(frozen=True, kw_only=True)
class WorkerResources:
    """What a worker reserves on its machine."""

    cores: int = 1
    gpus: int = 0


class RayWorker:
    """The actor's class. Two of its calls run at a time: `run`, and `frames` for its progress."""

    def __init__(self) -> None:
        self._worker: FileWorker | None = None
        self._share: Share | None = None
        self._done = 0

    def open(self, number: int, setup: Setup, files: Files) -> Ready | NotReady:
        import ray

        machine = str(ray.get_runtime_context().get_node_id())
        try:
            self._share = Share(setup.cores) if setup.cores else None
            model = unpack_model(str(setup.recipe.options.get("model", "")), files, setup.recipe.model_digest)
            self._worker = FileWorker(setup, self._count, model=model)
        except Exception as error:  # the driver reports it
            return NotReady(number, f"{describe(error)} (on {socket.gethostname()})")
        return Ready(number, machine, self._worker.about)

    def run(self, job: Job) -> Outcome:
        assert self._worker is not None, "opened before"
        return self._worker.run(job)

    def frames(self) -> int:
        return self._done

    def _count(self, done: int) -> None:
        self._done = done


class _Method(Protocol):
    def remote(self, *arguments: object) -> ObjectRef[object]: ...


class _Actor(Protocol):
    open: _Method
    run: _Method
    frames: _Method


@dataclass(eq=False)
class _Worker:
    actor: _Actor
    waits_for: ObjectRef[object] | None
    machine: str = ""  # known once it is ready
    frames_call: ObjectRef[object] | None = None
    frames: int = 0


class RayPool:
    """wanted: the number of workers; None: as many as the cluster's machines can run, including machines that join
    later. files: of the model, for machines without it.

    Needs a process that has called `connect` or ray.init.
    """

    def __init__(
        self, setup: Setup, wanted: int | None, resources: WorkerResources, *, files: Files | None = None
    ) -> None:
        import ray

        self._ray = ray
        self._setup = replace(setup, cores=resources.cores)
        self._resources = resources
        self._follows = wanted is None
        self.wanted = max_workers(resources) if wanted is None else wanted
        self._files = ray.put(dict(files or {}))
        self._class = ray.remote(RayWorker).options(
            num_cpus=resources.cores, num_gpus=resources.gpus, max_restarts=0, max_task_retries=0, max_concurrency=2
        )
        self._workers: dict[int, _Worker] = {}
        self._number = 0
        self._polled_at = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        for number in list(self._workers):
            self._end(number)

    def give(self, worker: int, job: Job) -> None:
        one = self._workers[worker]
        one.frames = 0
        one.waits_for = one.actor.run.remote(job)

    def wait(self, seconds: float) -> Sequence[Event]:
        self._poll()
        while len(self._workers) < self.wanted:
            self._start()
        by_ref = {one.waits_for: number for number, one in self._workers.items() if one.waits_for is not None}
        if not by_ref:
            time.sleep(seconds)
            return []
        refs = list(by_ref)
        ready, rest = self._ray.wait(refs, num_returns=1, timeout=seconds)
        if ready and rest:
            ready += self._ray.wait(rest, num_returns=len(rest), timeout=0)[0]
        return [self._receive(by_ref[ref], ref) for ref in ready]

    def replace(self, worker: int) -> None:
        self._end(worker)

    def dismiss(self) -> None:
        self._follows = False
        self.wanted -= 1

    def frames_running(self) -> int:
        return sum(one.frames for one in self._workers.values())

    def _start(self) -> None:
        self._number += 1
        actor = cast(_Actor, self._class.remote())
        opened = actor.open.remote(self._number, self._setup, self._files)
        self._workers[self._number] = _Worker(actor, opened)

    def _end(self, number: int) -> None:
        with suppress(self._ray.exceptions.RayError):
            self._ray.kill(self._workers.pop(number).actor)

    def _receive(self, number: int, ref: ObjectRef[object]) -> Event:
        one = self._workers[number]
        one.waits_for, one.frames = None, 0
        try:
            answer = self._ray.get(ref)
        except self._ray.exceptions.RayError as error:
            return self._handle_death(number, error)
        if isinstance(answer, Outcome):
            return Finished(number, answer)
        if isinstance(answer, Ready):
            one.machine = answer.machine
        else:
            self._end(number)
        return cast(Event, answer)

    def _handle_death(self, number: int, error: Exception) -> Event:
        """The event for an actor that has ended: Lost if its machine is the cause, else Crashed or NotReady."""
        one = self._workers[number]
        self._end(number)  # it may still run behind a broken connection, and its result is no longer used
        text = " ".join(str(error).split())
        unreachable = isinstance(error, self._ray.exceptions.ActorUnavailableError)
        if unreachable or "node has died" in text or (one.machine and one.machine not in _machines()):
            return Lost(number, "the machine cannot be reached" if unreachable else "the machine is gone")
        cause = f"died: {_cause(text)}"
        return Crashed(number, cause) if one.machine else NotReady(number, f"a worker {cause}")

    def _poll(self) -> None:
        """Every POLL_EVERY_S: update the number of machines and the number of frames done."""
        if time.monotonic() - self._polled_at < POLL_EVERY_S:
            return
        self._polled_at = time.monotonic()
        if self._follows:
            self.wanted = max(1, max_workers(self._resources))
        for one in self._workers.values():
            if one.frames_call is not None and self._ray.wait([one.frames_call], timeout=0)[0]:
                with suppress(self._ray.exceptions.RayError):
                    one.frames = int(str(self._ray.get(one.frames_call))) if one.waits_for is not None else 0
                one.frames_call = None
            if one.frames_call is None and one.machine and one.waits_for is not None:
                one.frames_call = one.actor.frames.remote()


def connect(address: str, *, extra_folder: str = "") -> None:
    """Join a cluster and send it the code that workers run, and `extra_folder` of the checkout.

    Raises EngineError if Ray is not installed, no cluster answers, or its version differs.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray prints no summary of its processes' deaths; the driver reports each in one line
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")
    try:
        import ray
    except ImportError as error:
        raise EngineError("--address needs Ray, which is not installed; pip install '.[cluster]'") from error
    _reach(address)
    try:
        ray.init(
            address=address,
            log_to_driver=False,
            logging_level="ERROR",
            runtime_env={"working_dir": str(ROOT), "excludes": excluded(ROOT, {*WORKER_FOLDERS, extra_folder})},
        )
    except Exception as error:  # Ray's connection, version and address errors have no common class
        message = " ".join(str(error).split())
        if "ersion" in message:
            message += "; install the same versions of Ray and Python on both sides"
        raise EngineError(f"cluster {address} cannot be used: {message}") from error


def excluded(root: Path, taken: set[str]) -> list[str]:
    """.gitignore patterns of everything at the top of a checkout that is not sent."""
    names = sorted(path.name for path in root.iterdir() if path.name not in taken)
    return ["/" + "".join(c if c.isalnum() else f"\\{c}" for c in name) for name in names]


def disconnect() -> None:
    import ray

    ray.shutdown()


def has_gpus() -> bool:
    return any(resources.get("GPU", 0) >= 1 for resources in _machines().values())


def cores_for_a_gpu() -> int:
    """Cores per GPU, the least over all machines that have GPUs."""
    return max(1, min(int(r.get("CPU", 1) // r["GPU"]) for r in _machines().values() if r.get("GPU", 0) >= 1))


def max_workers(resources: WorkerResources) -> int:
    """How many workers the cluster's machines can run at once when nothing else runs there."""
    total = 0
    for available in _machines().values():
        cores = int(available.get("CPU", 0) // resources.cores)
        total += min(cores, int(available.get("GPU", 0) // resources.gpus)) if resources.gpus else cores
    return total


def _machines() -> dict[str, dict[str, float]]:
    """The resources of every running machine, by its id."""
    import ray

    return {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}


def _reach(address: str) -> None:
    """Raises EngineError if nothing listens at the address."""
    if address == "auto":
        return
    plain = address.removeprefix("ray://")
    host, _, port = plain.rpartition(":") if ":" in plain else (plain, "", "")
    number = int(port) if port.isdecimal() else CLIENT_PORT if address.startswith("ray://") else RAY_PORT
    try:
        socket.create_connection((host, number), timeout=REACH_S).close()
    except (OSError, OverflowError) as error:
        raise EngineError(
            f"no cluster answers at {address}: {error}; start one with `ray start --head`, and give the "
            "address that it prints"
        ) from error


def _cause(text: str) -> str:
    """The cause in Ray's message about an actor's death."""
    for start in ("Worker exit detail:", "The actor is dead because", "The actor died because"):
        if start in text:
            return text.split(start, 1)[1].strip().split(". ")[0]
    return text[:200]
