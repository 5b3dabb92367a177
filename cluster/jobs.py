"""A Job is one source file; a Recipe holds the options to process every file with. Both are sent to the workers."""

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

    name: the source's name in results, the "source" of run_video.py. where: the absolute path or URL to read it from.
    path: relative, with "/"; the start of its results' paths in the output folder.
    version: changes when the file does (modification time in ns, or the ETag on object storage).
    stale: names of records of an earlier version or other options; they are removed before new results are written.
    """

    name: str
    where: str
    path: str
    size_bytes: int
    version: str
    stale: tuple[str, ...] = ()

    @property
    def prefix(self) -> str:
        """The names of this file's records and partial results start with it."""
        return digest(self.path)


@dataclass(frozen=True, kw_only=True)
class Results:
    """Names of a finished job's files in the output folder: JSON lines, a table, an annotated copy."""

    json: str
    table: str | None = None
    save: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for name in (self.json, self.table, self.save) if name is not None)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The options to process every file with.

    options: the model, people and engine options of the command line, by name. model_digest: of the model's file.
    save: also write an annotated copy. table: also write a table with this suffix, "csv" or "parquet".
    audio: keep the sound in the copy.
    decoder, encoder: where videos are decoded and encoded. They do not change results and are not part of the key.
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
        same_suffix = suffix in VIDEO_OUTPUTS or is_image(job.path)
        return Results(
            json=f"{job.path}.jsonl",
            table=f"{job.path}.{self.table}" if self.table is not None else None,
            save=(job.path if same_suffix else f"{job.path}.mp4") if self.save else None,
        )

    def key(self, job: Job) -> str:
        """Equal keys mean the same file and options, so the results need not be made again."""
        options = {**self.options, "save": self.save, "table": self.table, "audio": self.audio}
        return result_key(job.path, job.size_bytes, job.version, model_digest=self.model_digest, options=options)

    def record(self, job: Job) -> str:
        """The name of the record of the finished job; its prefix is the same for every version of the file."""
        return f"{job.prefix}-{self.key(job)}{RECORD_SUFFIX}"


def prefix_of(record: str) -> str:
    """The `Job.prefix` that a record's name starts with."""
    return record[:DIGEST_CHARACTERS]
