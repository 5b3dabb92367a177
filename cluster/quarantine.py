"""What is left to do, and `failed.jsonl`: the files that were put aside, one a line, with what went wrong."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace

from cluster.jobs import Job, Recipe, place_of
from cluster.store import Contents, Store

FAILED = "failed.jsonl"
WRITE_EVERY_S = 1.0  # object storage has no "append": the file is written whole each time


@dataclass(frozen=True, kw_only=True)
class Failure:
    """key: of the file and of what was done with it: when either changes, it is tried again. at: seconds since 1970."""

    source: str
    path: str
    key: str
    error: str
    attempts: int
    at: float


class Quarantine:
    """The lines of failed.jsonl, in memory and in the store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._written_at = 0.0
        self._changed = False
        self._failures: dict[str, Failure] = {}
        for line in (store.read(FAILED) or b"").splitlines():
            try:
                failure = Failure(**json.loads(line))
            except (ValueError, TypeError):  # not ours, or edited by hand: such a file is tried again
                self._changed = True
                continue
            self._failures[failure.path] = failure

    def holds(self, path: str, key: str) -> bool:
        return path in self._failures and self._failures[path].key == key

    def add(self, failure: Failure) -> None:
        self._failures[failure.path] = failure
        self._changed = True

    def drop(self, path: str) -> None:
        self._changed |= self._failures.pop(path, None) is not None

    def write(self, *, now: bool = False) -> None:
        """At most once a second, unless `now`. Raises SinkError."""
        if self._changed and (now or time.monotonic() - self._written_at >= WRITE_EVERY_S):
            lines = [json.dumps(asdict(failure)) + "\n" for failure in self._failures.values()]
            self._store.write(FAILED, "".join(lines).encode())
            self._written_at, self._changed = time.monotonic(), False


@dataclass(frozen=True, kw_only=True)
class Plan:
    """todo: what is left. done: how many files were finished before. aside: how many lie in failed.jsonl and stay."""

    todo: Sequence[Job]
    done: int
    aside: int


def plan(
    jobs: Iterable[Job], recipe: Recipe, contents: Contents, quarantine: Quarantine, *, retry_failed: bool
) -> Plan:
    """Inputs minus records. A file is done if it has the record of its version and options, and its results are there.

    Takes from the quarantine what is tried again.
    """
    records: dict[str, list[str]] = {}
    for name in contents.records:
        records.setdefault(place_of(name), []).append(name)
    todo: list[Job] = []
    done = aside = 0
    for job in jobs:
        known = records.get(job.place, [])
        if recipe.record(job) in known and contents.results.issuperset(recipe.results(job).names):
            done += 1
        elif quarantine.holds(job.path, recipe.key(job)) and not retry_failed:
            aside += 1
        else:
            todo.append(replace(job, stale=tuple(known)))
            quarantine.drop(job.path)
    return Plan(todo=todo, done=done, aside=aside)
