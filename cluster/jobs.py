"""What is to be done: a Job is one source file, a Recipe is what is done to each. Both travel to the workers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from commands.records import DIGEST_CHARACTERS, Option, digest, result_key
from pipeline.hardware import Choice
from pipeline.sources import is_image

VIDEO_OUTPUTS = frozenset({".mp4", ".m4v", ".mov", ".mkv"})  # an annotated copy keeps these suffixes
RECORD_SUFFIX = ".json"


@dataclass(frozen=True, kw_only=True)
class Job:
    """One file.

    name: as results name it, what run_video.py writes under "source". where: an absolute path or a URL to read it by.
    path: relative, with "/": results lie under it in the output folder.
    version: changes when the file does (its time of change in ns, or the ETag on object storage).
    stale: names of records of an earlier version or other options; they go before new results come.
    """

    name: str
    where: str
    path: str
    size_bytes: int
    version: str
    stale: tuple[str, ...] = ()

    @property
    def place(self) -> str:
        """The start of the names of this file's records and partial results."""
        return digest(self.path)


@dataclass(frozen=True, kw_only=True)
class Results:
    """Names of what a finished job leaves in the output folder: JSON lines, a table, an annotated copy."""

    json: str
    table: str | None = None
    save: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for name in (self.json, self.table, self.save) if name is not None)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What is done to every file.

    options: the model, people and engine options of the command line, by name. model_digest: of the model's file.
    save: an annotated copy as well. table: the suffix of a table as well, "csv" or "parquet".
    audio: the copy keeps its sound.
    decoder, encoder: where videos are decoded and encoded; results do not depend on it, so that it is not in the key.
    """

    options: Mapping[str, Option] = field(default_factory=dict)
    model_digest: str = ""
    save: bool = False
    table: str | None = None
    audio: bool = True
    decoder: Choice = "auto"
    encoder: Choice = "auto"

    def results(self, job: Job) -> Results:
        suffix = PurePosixPath(job.path).suffix.lower()
        kept = suffix in VIDEO_OUTPUTS or is_image(job.path)
        return Results(
            json=f"{job.path}.jsonl",
            table=f"{job.path}.{self.table}" if self.table is not None else None,
            save=(job.path if kept else f"{job.path}.mp4") if self.save else None,
        )

    def key(self, job: Job) -> str:
        """Equal where the same file would be treated in the same way: then its results need not be made again."""
        options = {**self.options, "save": self.save, "table": self.table, "audio": self.audio}
        return result_key(job.path, job.size_bytes, job.version, model_digest=self.model_digest, options=options)

    def record(self, job: Job) -> str:
        """The name of the record that says the job is done; its start is the same for every version of the file."""
        return f"{job.place}-{self.key(job)}{RECORD_SUFFIX}"


def place_of(record: str) -> str:
    """The `Job.place` a record's name starts with."""
    return record[:DIGEST_CHARACTERS]
