"""The jobs that are not done yet, and `failed.jsonl`: the files that failed, one a line, with their errors."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace

from cluster.inputs import is_gone
from cluster.jobs import Job, Recipe, prefix_of
from cluster.store import Contents, Store

FAILED = "failed.jsonl"
WRITE_EVERY_S = 1.0  # object storage cannot append: the whole file is written each time


@dataclass(frozen=True, kw_only=True)
class Failure:
    """key: as `Recipe.key`; a file whose key has changed is tried again. at: seconds since 1970."""

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
            except (ValueError, TypeError):  # not written by this program, or edited: that file is tried again
                self._changed = True
                continue
            self._failures[failure.path] = failure

    def holds(self, path: str, key: str) -> bool:
        return path in self._failures and self._failures[path].key == key

    def add(self, failure: Failure) -> None:
        self._failures[failure.path] = failure
        self._changed = True

    def drop_gone(self, jobs: Iterable[Job], sources: Sequence[str]) -> None:
        """Drop the files that `sources`, which gave `jobs`, no longer find because they do not exist any more."""
        found = {job.path for job in jobs}
        for failure in list(self._failures.values()):
            if failure.path not in found and is_gone(failure.source, failure.path, sources):
                self.drop(failure.path)

    def drop(self, path: str) -> None:
        self._changed |= self._failures.pop(path, None) is not None

    def write(self, *, now: bool = False) -> None:
        """Write changes to the store, at most once a second unless `now`. Raises SinkError."""
        if self._changed and (now or time.monotonic() - self._written_at >= WRITE_EVERY_S):
            lines = [json.dumps(asdict(failure)) + "\n" for failure in self._failures.values()]
            self._store.write(FAILED, "".join(lines).encode())
            self._written_at, self._changed = time.monotonic(), False


@dataclass(frozen=True, kw_only=True)
class Plan:
    """todo: the jobs to do. done: files finished by an earlier run. quarantined: files that stay in failed.jsonl."""

    todo: Sequence[Job]
    done: int
    quarantined: int


def plan(
    jobs: Iterable[Job], recipe: Recipe, contents: Contents, quarantine: Quarantine, *, retry_failed: bool
) -> Plan:
    """The inputs without those that are done: with a record of their version and options, and with all results.

    Removes the files that are tried again from the quarantine.
    """
    records: dict[str, list[str]] = {}
    for name in contents.records:
        records.setdefault(prefix_of(name), []).append(name)
    todo: list[Job] = []
    done = quarantined = 0
    for job in jobs:
        known = records.get(job.prefix, [])
        if recipe.record(job) in known and contents.results.issuperset(recipe.results(job).names):
            done += 1
        elif quarantine.holds(job.path, recipe.key(job)) and not retry_failed:
            quarantined += 1
        else:
            todo.append(replace(job, stale=tuple(known)))
            quarantine.drop(job.path)
    return Plan(todo=todo, done=done, quarantined=quarantined)
