"""FileWorker: opens a model and processes one file after another, in a process of this machine or in a Ray actor."""

from __future__ import annotations

import json
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from cluster.jobs import Job, Recipe, Results
from cluster.recipes import open_steps
from cluster.remote import fetch
from cluster.scratch import scratch
from cluster.store import NO_SPACE, Store
from core.errors import PoseError, SinkError, SourceError, describe
from pipeline import PosePipeline, Result, open_source
from pipeline.hardware import find_decoder, find_encoder
from pipeline.sinks import Sink
from pipeline.sinks.outputs import Outputs, open_sinks
from pipeline.sources import is_url
from pipeline.stats import Recorder

Kind = Literal["done", "failed", "output full", "scratch full"]
FETCHED = "fetched"
OpenPose = Callable[[Recipe], PosePipeline]  # a function of a module: it is pickled by its name


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The result of a job.

    kind: "output full" and "scratch full" (this machine's temporary folder) do not count as a failure of the job.
    error: one line, unless done. replace_worker: the worker may be damaged and should be replaced.
    seconds: processing time. video_s: duration of the source.
    """

    kind: Kind
    error: str = ""
    replace_worker: bool = False
    frames: int = 0
    people: int = 0
    video_s: float = 0.0
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What every worker is started with. token: of the store's lock, for `Store.check`. cores: per worker; 0: all."""

    recipe: Recipe
    store: Store
    token: str
    open_pose: OpenPose
    cores: int = 0


class FileWorker:
    """The constructor opens the model; it raises PoseError or ValueError if that fails.

    on_progress: called with the number of frames done in the running file, and with 0 at its end. model: its path on
    this machine, if it differs from the recipe's.
    """

    def __init__(
        self, setup: Setup, on_progress: Callable[[int], None] = lambda done: None, *, model: str | None = None
    ) -> None:
        self._recipe, self._store, self._on_progress = setup.recipe, setup.store, on_progress
        self._store.check(setup.token)
        self._stack = ExitStack()
        self._scratch = self._stack.enter_context(scratch())
        recipe = setup.recipe
        # a GPU that was asked for and cannot do it: reported before the model is opened
        decodes = find_decoder(recipe.decoder)
        encodes = find_encoder(recipe.encoder) if recipe.save else None
        if model is not None:
            recipe = replace(recipe, options={**recipe.options, "model": model})
        with self._stack.pop_all() as opened:  # closed again if the model cannot be opened
            self._pose = opened.enter_context(setup.open_pose(recipe))
            self._stack = opened.pop_all()
        videos = [f"decoded {decodes}", *([f"encoded {encodes}"] if encodes is not None else [])]
        self.about = f"{self._pose.step.about}; videos are {', and '.join(videos)}"

    def run(self, job: Job) -> Outcome:
        """Process one file. Errors of the file or a disk are returned in the outcome, never raised."""
        started = time.perf_counter()
        try:
            outcome = self._run(job, started)
        except (PoseError, ValueError, OSError, MemoryError) as error:
            kind: Kind = "failed" if not _is_full(error) else "output full" if self._store.on_disk else "scratch full"
            # an unreadable source does not damage the worker; any other error may
            damaged = not isinstance(error, SourceError)
            message = describe(error).replace(str(self._scratch / FETCHED / Path(job.path).name), job.name)
            outcome = Outcome(kind=kind, error=message.replace(job.where, job.name), replace_worker=damaged)
        self._on_progress(0)
        return replace(outcome, seconds=time.perf_counter() - started)

    def close(self) -> None:
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _run(self, job: Job, started: float) -> Outcome:
        results = self._recipe.results(job)
        with self._store.attempt(job.prefix, self._scratch) as folder, self._local(job) as path:
            outcome = self._analyse(job, path, results, folder)
            record = {
                **{name: value for name, value in asdict(job).items() if name != "stale"},
                **{
                    "results": results.names,
                    "frames": outcome.frames,
                    "people": outcome.people,
                    "video_s": outcome.video_s,
                },
                "seconds": round(time.perf_counter() - started, 3),
                "host": socket.gethostname(),
                "options": dict(self._recipe.options),
                "model_digest": self._recipe.model_digest,
            }
            content = json.dumps(record, indent=1).encode()
            self._store.commit(folder, results.names, self._recipe.record(job), content, job.stale)
        return outcome

    @contextmanager
    def _local(self, job: Job) -> Iterator[str]:
        """The path of the job's file on this machine; for a URL, that of a copy in the temporary folder."""
        if not is_url(job.where):
            yield job.where
            return
        folder = self._scratch / FETCHED
        folder.mkdir(exist_ok=True)
        try:
            path = folder / Path(job.path).name
            fetch(job.where, path)
            yield str(path)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _analyse(self, job: Job, path: str, results: Results, folder: Path) -> Outcome:
        """Run the pipeline over one file and write its results. Raises the errors of source, pipeline and sinks."""
        frames = people = 0
        last_s = 0.0
        recorder = Recorder()
        json_path, save, table = (
            folder / Path(name).name if name is not None else None
            for name in (results.json, results.save, results.table)
        )
        with open_source(path, decoder=self._recipe.decoder) as source:
            # the copy's sink reads the sound from this machine's file; the other sinks get the user's name of it
            recipe = self._recipe
            copies = open_sinks(save=save, json=None, show=None, audio=recipe.audio, encoder=recipe.encoder)
            lines = open_sinks(save=None, json=json_path, table=table, show=None)
            outputs = Outputs([*copies, *(_Named(sink, job.name) for sink in lines)], recorder)
            results_of = self._pose.run(source, steps=open_steps(self._recipe), recorder=recorder)
            with finished(outputs), closing(results_of) as frames_of:
                for result in frames_of:
                    outputs.write(result)
                    frames += 1
                    people += len(result.people)
                    last_s = result.frame.time_s
                    self._on_progress(frames)
        return Outcome(kind="done", frames=frames, people=people, video_s=last_s)


@contextmanager
def finished(outputs: Outputs) -> Iterator[None]:
    """Closes the outputs. If the block raises, its error is raised, not one of closing."""
    try:
        yield
    except BaseException:
        with suppress(SinkError):
            outputs.close()
        raise
    outputs.close()


class _Named(Sink):
    """Passes results on under another source name: the user's, wherever the file is read from."""

    needs_picture = False

    def __init__(self, sink: Sink, name: str) -> None:
        self._sink, self._name = sink, name

    def write(self, result: Result, picture: NDArray[np.uint8]) -> None:
        self._sink.write(replace(result, frame=replace(result.frame, source=self._name)), picture)

    def close(self) -> None:
        self._sink.close()


def _is_full(error: BaseException) -> bool:
    """Whether a full disk caused an error; a sink's error has the OSError as its cause."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in NO_SPACE:
            return True
        cause = cause.__cause__
    return False
