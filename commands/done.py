"""--skip-done: finds finished sources by the record of each in the folder of annotated copies."""

from __future__ import annotations

import argparse
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from commands.arguments import shared_options
from commands.records import Option, digest, digest_of, result_key
from core.errors import SinkError
from core.files import write_whole
from pipeline import Source, open_source
from pipeline.sinks import file_name
from pipeline.sinks.outputs import check_outputs, is_folder

RECORDS = ".higherpose/done"


class DoneSources:
    """Records in `folder`, keyed by each source's path, size and time, the model and the options.

    A record holds the size and time of the copy too: one that another run replaced is not done. A source's record is
    removed when it is started again with other options or another version, and written when the source is finished.
    """

    def __init__(self, folder: Path, *, model_digest: str, options: Mapping[str, Option]) -> None:
        self.folder = folder
        self._model_digest, self._options = model_digest, dict(options)
        self._keys: dict[str, str] = {}  # keys of the sources that are not done, computed before the run

    def left(self, sources: Sequence[str]) -> list[str]:
        """The sources that are not done. Raises ValueError if two have the same name, since the copies' names
        then depend on the other sources."""
        name, count = Counter(map(file_name, sources)).most_common(1)[0]
        if count > 1:
            raise ValueError(
                f"--skip-done: {count} sources would be saved as {name}; rename one, or use python -m cluster"
            )
        left = []
        for source in sources:
            key = self._key(source)
            if key is None or not self._is_done(source, key):
                left.append(source)
                if key is not None:
                    self._keys[source] = key
        for source in left:
            self._record(source).unlink(missing_ok=True)  # its copy will be overwritten
        return left

    def mark(self, source: str) -> None:
        """Record that the source's copy is complete. Raises SinkError."""
        if source not in self._keys:  # a camera or stream: never done
            return
        path = self._record(source)
        try:
            copy = self._copy(source)
        except OSError:  # removed meanwhile: not done
            return
        try:
            write_whole(path, json.dumps({"source": source, "key": self._keys[source], "copy": copy}).encode())
        except OSError as error:
            raise SinkError(f"{path} cannot be written: {error.strerror or error}") from error

    def _is_done(self, source: str, key: str) -> bool:
        try:
            record = json.loads(self._record(source).read_bytes())
            return (record.get("key"), record.get("copy")) == (key, self._copy(source))
        except (OSError, ValueError, AttributeError):
            return False

    def _copy(self, source: str) -> list[int]:
        """Size and time of the source's copy. Raises OSError if there is none."""
        status = (self.folder / file_name(source)).stat()
        return [status.st_size, status.st_mtime_ns]

    def _key(self, source: str) -> str | None:
        """The key of a source; None if it is not a file."""
        try:
            status = Path(source).stat()
        except (OSError, ValueError):
            return None
        path, version = os.path.realpath(source), str(status.st_mtime_ns)
        return result_key(path, status.st_size, version, model_digest=self._model_digest, options=self._options)

    def _record(self, source: str) -> Path:
        return self.folder / RECORDS / f"{digest(os.path.realpath(source))}.json"


def skip_done(arguments: argparse.Namespace) -> DoneSources:
    """Remove the finished sources from `arguments.sources`. Raises what `open_source` raises, for any source."""
    if arguments.save is None or not is_folder(arguments.save):
        raise ValueError("--skip-done needs --save DIR, which gets one file per source")
    if arguments.json is not None or arguments.table is not None:
        raise ValueError(
            "--skip-done cannot extend a --json or --table file that holds all sources; omit them, or use "
            "python -m cluster, which writes one file per source"
        )
    if arguments.realtime:
        raise ValueError("--skip-done is for copies with all frames, and --realtime drops some; omit one")
    with open_source(*arguments.sources) as source:
        if source.live or arguments.loop:
            raise ValueError("--skip-done is for files without --loop: a live source and --loop have no end")
        parts = source.parts
    options = {**shared_options(arguments), "audio": arguments.audio}
    done = DoneSources(arguments.save, model_digest=digest_of(arguments.model), options=options)
    check_outputs(parts, save=arguments.save, others=[])
    arguments.sources = done.left(parts)
    return done


def mark_done(done: DoneSources | None, source: Source, part: str) -> None:
    """Record that this part of the source is finished, unless it failed. done: None without --skip-done."""
    if done is not None and part not in source.failed:
        done.mark(part)
