"""Workers as Ray actors: one a GPU, or one a group of cores, on every machine of a cluster. Ray is imported when used.

Only jobs and outcomes cross Ray, some hundred bytes each; a model that is a file crosses once a machine, as an object.
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
from cluster.models import unpacked
from cluster.pool import Crashed, Event, Finished, Lost, NotReady, Ready
from cluster.worker import FileWorker, Outcome, Setup
from core.errors import EngineError, describe

if TYPE_CHECKING:
    from ray import ObjectRef

ROOT = Path(__file__).resolve().parents[1]
# What a worker runs. Nothing else of a checkout travels: somebody's videos may lie there.
ROOMS = ("cluster", "commands", "core", "engine", "evaluation", "export", "kernels", "models", "pipeline")
LOOK_EVERY_S = 5.0  # at the machines there are, and at the frames that are done
REACH_S = 5.0  # Ray itself would try for minutes
RAY_PORT, CLIENT_PORT = 6379, 10001

Files = Mapping[str, bytes]


@dataclass(frozen=True, kw_only=True)
class Ask:
    """What a worker asks of the machine that it runs on."""

    cores: int = 1
    gpus: int = 0


class RayWorker:
    """What lives in an actor. Two of its calls run at a time: the file, and the question how far it is."""

    def __init__(self) -> None:
        self._worker: FileWorker | None = None
        self._share: Share | None = None
        self._done = 0

    def open(self, number: int, setup: Setup, files: Files) -> Ready | NotReady:
        import ray

        place = str(ray.get_runtime_context().get_node_id())
        try:
            self._share = Share(setup.cores) if setup.cores else None
            model = unpacked(str(setup.recipe.options.get("model", "")), files, setup.recipe.model_digest)
            self._worker = FileWorker(setup, self._count, model=model)
        except Exception as error:  # handed to the driver, which says it
            return NotReady(number, f"{describe(error)} (on {socket.gethostname()})")
        return Ready(number, place, self._worker.about)

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
    place: str = ""  # known once it is ready
    asked: ObjectRef[object] | None = None  # how far it is
    frames: int = 0


class RayPool:
    """wanted: None follows the cluster: as many workers as its machines have room for, also those that join later.

    Made by `connect` or in a process that has called ray.init. files: of the model, for machines without it.
    """

    def __init__(self, setup: Setup, wanted: int | None, ask: Ask, *, files: Files | None = None) -> None:
        import ray

        self._ray = ray
        self._setup = replace(setup, cores=ask.cores)
        self._ask = ask
        self._follows = wanted is None
        self.wanted = room(ask) if wanted is None else wanted
        self._files = ray.put(dict(files or {}))
        self._class = ray.remote(RayWorker).options(
            num_cpus=ask.cores, num_gpus=ask.gpus, max_restarts=0, max_task_retries=0, max_concurrency=2
        )
        self._workers: dict[int, _Worker] = {}
        self._number = 0
        self._looked_at = time.monotonic()

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
        self._look()
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
        return [self._hear(by_ref[ref], ref) for ref in ready]

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

    def _hear(self, number: int, ref: ObjectRef[object]) -> Event:
        one = self._workers[number]
        one.waits_for, one.frames = None, 0
        try:
            answer = self._ray.get(ref)
        except self._ray.exceptions.RayError as error:
            return self._gone(number, error)
        if isinstance(answer, Outcome):
            return Finished(number, answer)
        if isinstance(answer, Ready):
            one.place = answer.place
        else:
            self._end(number)
        return cast(Event, answer)

    def _gone(self, number: int, error: Exception) -> Event:
        """Whose fault it is that an actor is no more: a machine's, or what it worked on."""
        one = self._workers[number]
        self._end(number)  # it may live on behind a broken connection: nobody waits for it any more
        text = " ".join(str(error).split())
        unreachable = isinstance(error, self._ray.exceptions.ActorUnavailableError)
        if unreachable or "node has died" in text or (one.place and one.place not in _machines()):
            return Lost(number, "the machine cannot be reached" if unreachable else "the machine is gone")
        words = f"died: {_cause(text)}"
        return Crashed(number, words) if one.place else NotReady(number, f"a worker {words}")

    def _look(self) -> None:
        """Now and then: have machines come or gone; how far are the files."""
        if time.monotonic() - self._looked_at < LOOK_EVERY_S:
            return
        self._looked_at = time.monotonic()
        if self._follows:
            self.wanted = max(1, room(self._ask))
        for one in self._workers.values():
            if one.asked is not None and self._ray.wait([one.asked], timeout=0)[0]:
                with suppress(self._ray.exceptions.RayError):
                    one.frames = int(str(self._ray.get(one.asked))) if one.waits_for is not None else 0
                one.asked = None
            if one.asked is None and one.place and one.waits_for is not None:
                one.asked = one.actor.frames.remote()


def connect(address: str, *, also: str = "") -> None:
    """Join a cluster; our own code comes along, and the folder `also` of the checkout.

    Raises EngineError: no Ray, no cluster, or another version of it.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # of what the machines' own processes report; each death is told in one line of ours
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
            runtime_env={"working_dir": str(ROOT), "excludes": left_behind(ROOT, {*ROOMS, also})},
        )
    except Exception as error:  # Ray's connection, version and address errors have no common class
        words = " ".join(str(error).split())
        if "ersion" in words:
            words += "; install the same versions of Ray and Python on both sides"
        raise EngineError(f"cluster {address} cannot be used: {words}") from error


def left_behind(root: Path, taken: set[str]) -> list[str]:
    """Patterns, as in .gitignore, of everything at the top of a checkout that does not travel."""
    names = sorted(path.name for path in root.iterdir() if path.name not in taken)
    return ["/" + "".join(c if c.isalnum() else f"\\{c}" for c in name) for name in names]


def disconnect() -> None:
    import ray

    ray.shutdown()


def has_gpus() -> bool:
    return any(resources.get("GPU", 0) >= 1 for resources in _machines().values())


def cores_for_a_gpu() -> int:
    """The cores that each GPU's worker can have on every machine that has GPUs."""
    return max(1, min(int(r.get("CPU", 1) // r["GPU"]) for r in _machines().values() if r.get("GPU", 0) >= 1))


def room(ask: Ask) -> int:
    """How many workers the machines of the cluster have room for when nothing else runs there."""
    total = 0
    for resources in _machines().values():
        cores = int(resources.get("CPU", 0) // ask.cores)
        total += min(cores, int(resources.get("GPU", 0) // ask.gpus)) if ask.gpus else cores
    return total


def _machines() -> dict[str, dict[str, float]]:
    """The resources of every machine that is alive, by its id."""
    import ray

    return {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}


def _reach(address: str) -> None:
    """Raises EngineError if nothing listens there."""
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
    """The telling part of Ray's account of a death."""
    for start in ("Worker exit detail:", "The actor is dead because", "The actor died because"):
        if start in text:
            return text.split(start, 1)[1].strip().split(". ")[0]
    return text[:200]
