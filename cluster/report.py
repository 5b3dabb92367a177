"""Reports a run: a progress line while it runs, each failure, and `summary.json` at its end."""

from __future__ import annotations

import json
import time
from collections import Counter
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from cluster.jobs import Job, Recipe
from cluster.pool import Ready
from cluster.quarantine import Failure, Plan, Quarantine
from cluster.store import Store
from cluster.worker import Outcome
from core.errors import SinkError

SUMMARY = "summary.json"
LINE_EVERY_S = 60.0  # progress lines where stderr is no terminal, which shows a bar instead


@dataclass(kw_only=True)
class Summary:
    """The content of summary.json. files = done + skipped + failed + left; skipped were finished by an earlier run.

    failed counts this run's sources that are in failed.jsonl, also since an earlier run. seconds: of this run.
    fps: frames of this run per second. video_s: duration of the done videos. ended: "finished", or the reason.
    """

    out: str
    files: int
    skipped: int
    done: int = 0
    failed: int = 0
    left: int = 0
    retries: int = 0
    frames: int = 0
    people: int = 0
    video_s: float = 0.0
    seconds: float = 0.0
    fps: float = 0.0
    workers: int = 0
    machines: int = 0
    ended: str = "interrupted"
    options: dict[str, object] = field(default_factory=dict)
    model_digest: str = ""


class Report:
    """The driver's Observer. Leaving the `with` block writes failed.jsonl and summary.json, also after an error."""

    def __init__(self, plan: Plan, recipe: Recipe, store: Store, quarantine: Quarantine, console: Console) -> None:
        self._recipe, self._store, self._quarantine, self._console = recipe, store, quarantine, console
        todo = plan.todo
        self.summary = Summary(
            out=store.where,
            files=len(todo) + plan.done + plan.quarantined,
            skipped=plan.done,
            failed=plan.quarantined,
            left=len(todo),
            options=dict(recipe.options),
            model_digest=recipe.model_digest,
        )
        self._bytes_left = self._bytes_all = sum(job.size_bytes for job in todo)
        self._machines: Counter[str] = Counter()
        self._started_at = self._line_at = time.monotonic()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[rest]}"),
            console=console,
            disable=not console.is_terminal,
            transient=True,
            expand=True,
        )
        self._task = self._bar.add_task("", total=max(1, self._bytes_all), rest="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
        self._measure(0)
        self.summary.ended = "finished" if error is None else str(error) or "interrupted"
        content = json.dumps(asdict(self.summary), indent=1).encode() + b"\n"
        if error is None:
            self._quarantine.write(now=True)
            self._store.write(SUMMARY, content)
            return
        with suppress(SinkError):  # the first error is reported
            self._quarantine.write(now=True)
            self._store.write(SUMMARY, content)

    def started(self, worker: Ready) -> None:
        if worker.machine not in self._machines:
            self._say(f"{worker.machine}: {worker.about}")
        self._machines[worker.machine] += 1
        self.summary.machines = len(self._machines)

    def not_started(self, error: str) -> None:
        self._say(f"a worker could not start: {error}")

    def done(self, job: Job, outcome: Outcome) -> None:
        self.summary.done += 1
        self.summary.frames += outcome.frames
        self.summary.people += outcome.people
        self.summary.video_s += outcome.video_s
        self._count_down(job)

    def failed(self, job: Job, error: str, attempts: int) -> None:
        self.summary.failed += 1
        self._quarantine.add(
            Failure(
                source=job.name,
                path=job.path,
                key=self._recipe.key(job),
                error=error,
                attempts=attempts,
                at=round(time.time(), 3),
            )
        )
        self._say(f"failed {job.name}: {error}")
        self._count_down(job)

    def retried(self, job: Job, error: str) -> None:
        self.summary.retries += 1

    def tick(self, *, workers: int, running: int, frames_running: int) -> None:
        self._store.check_lock()
        self._quarantine.write()
        self.summary.workers = max(self.summary.workers, workers)
        self._measure(frames_running)
        line, rest = self._line(running)
        self._bar.update(self._task, completed=self._bytes_all - self._bytes_left, description=line, rest=rest)
        if not self._console.is_terminal and time.monotonic() - self._line_at >= LINE_EVERY_S:
            self._line_at = time.monotonic()
            self._say(f"{line}, {rest}")

    def _line(self, running: int) -> tuple[str, str]:
        summary = self.summary
        files = f"{summary.done + summary.skipped} of {summary.files} files"
        failed = f", {summary.failed} failed" if summary.failed else ""
        return files + failed, f"{running} running, {summary.fps:.0f} FPS{self._remaining()}"

    def _remaining(self) -> str:
        """Estimated from bytes, since the files of one run are mostly of one kind."""
        seconds = time.monotonic() - self._started_at
        done = self._bytes_all - self._bytes_left
        if not done or not self._bytes_left:
            return ""
        minutes = round(seconds * self._bytes_left / done / 60)
        return f", about {minutes // 60}:{minutes % 60:02d} h left" if minutes else ", less than a minute left"

    def _count_down(self, job: Job) -> None:
        self.summary.left -= 1
        self._bytes_left -= job.size_bytes

    def _measure(self, frames_running: int) -> None:
        seconds = time.monotonic() - self._started_at
        self.summary.seconds = round(seconds, 3)
        self.summary.fps = round((self.summary.frames + frames_running) / seconds, 2) if seconds > 0 else 0.0

    def _say(self, text: str) -> None:
        self._console.print(text, soft_wrap=True, highlight=False, markup=False)
