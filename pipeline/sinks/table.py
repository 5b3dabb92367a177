"""Tables with one row per person and frame, as CSV or Parquet; or COCO results as one JSON list.

Columns: source, frame, time_s, id (empty without ids), score, bbox_x, bbox_y, bbox_w, bbox_h, then for every joint of
the model NAME_x, NAME_y, NAME_score; values rounded as in JSON lines; a joint that was not found is 0, 0, 0.
"""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from core.errors import EngineError, SinkError
from core.joints import joint_set_of
from pipeline.sinks.base import Sink, open_file, reason, write_all
from pipeline.sinks.json_lines import person_entries
from pipeline.types import Result

if TYPE_CHECKING:
    import pyarrow
    import pyarrow.parquet

TABLE_SUFFIXES = (".csv", ".parquet", ".json")
BOX = ("bbox_x", "bbox_y", "bbox_w", "bbox_h")
PERSON = 1  # COCO's category
COCO_JOINTS = 17
ROW_GROUP = 8192  # rows of a Parquet file that are collected in memory, about 2 MB


def check_table(path: Path) -> None:
    """Raises ValueError for an unknown suffix, EngineError for a Parquet file if pyarrow is not installed."""
    suffix = path.suffix.lower()
    if suffix not in TABLE_SUFFIXES:
        raise ValueError(f"{path} has no known table suffix; expected one of {', '.join(TABLE_SUFFIXES)}")
    if suffix == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise EngineError(f"{path} needs pyarrow, which is not installed; pip install '.[table]', or write a .csv")


def open_table(path: Path) -> Sink:
    """Open the sink for a table's suffix. Raises what `check_table` raises, and SinkError."""
    check_table(path)
    match path.suffix.lower():
        case ".csv":
            return CsvSink(path)
        case ".parquet":
            return ParquetSink(path)
        case _:
            return CocoSink(path)


def columns(joints: int) -> list[str]:
    """The names of a table's columns for a model with K joints."""
    names = joint_set_of(joints).joints
    parts = [f"{name}_{part}" for name in names for part in ("x", "y", "score")]
    return ["source", "frame", "time_s", "id", "score", *BOX, *parts]


def rows(result: Result) -> list[list[object]]:
    """A list of values for each person, in the order of `columns`."""
    frame = result.frame
    source = os.fsencode(frame.source).decode(
        errors="replace"
    )  # a name of Linux need not be UTF-8, a table's text must
    frame_values: list[object] = [source, frame.index, round(frame.time_s, 6)]
    return [
        [
            *frame_values,
            one.get("id"),
            one["score"],
            *one["bbox"],
            *(value for joint in one["keypoints"] for value in joint),
        ]
        for one in person_entries(result.people)
    ]


class CsvSink(Sink):
    """Comma-separated values with a header. The rows of a frame are written by one system call."""

    needs_picture = False

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = open_file(path)
        self._started = False

    def write(self, result: Result, picture: NDArray[np.uint8]) -> None:
        lines = rows(result)
        if not self._started:
            lines = [[*columns(result.people.keypoints.shape[1])], *lines]
        self._write(lines)

    def close(self) -> None:
        if self._file.closed:
            return
        try:
            if not self._started:
                self._write([[*columns(COCO_JOINTS)]])  # no frame came: a table without rows
        finally:
            self._file.close()

    def _write(self, lines: list[list[object]]) -> None:
        self._started = True
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(lines)
        if lines:
            write_all(self._file, text.getvalue().encode(), self.path)


class ParquetSink(Sink):
    """A row group for every ROW_GROUP rows, compressed by zstd; coordinates and scores as float32.

    The file can be read only after it is closed, since its index is at the end.
    """

    needs_picture = False

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = open_file(path)
        self._schema: pyarrow.Schema | None = None
        self._writer: pyarrow.parquet.ParquetWriter | None = None
        self._rows: list[list[object]] = []

    def write(self, result: Result, picture: NDArray[np.uint8]) -> None:
        if self._schema is None:
            self._schema = self._schema_for(result.people.keypoints.shape[1])
        self._rows += rows(result)
        if len(self._rows) >= ROW_GROUP:
            self._flush()

    def close(self) -> None:
        if self._file.closed:
            return
        try:
            if self._schema is None:
                self._schema = self._schema_for(COCO_JOINTS)  # no frame came: a table without rows
            self._flush()
            with self._guarded():
                self._writer_now().close()
        finally:
            self._file.close()

    def _flush(self) -> None:
        import pyarrow

        assert self._schema is not None, "set before"
        values = list(zip(*self._rows, strict=True)) or [()] * len(self._schema)
        arrays = [pyarrow.array(column, type=kind) for column, kind in zip(values, self._schema.types, strict=True)]
        self._rows = []
        with self._guarded():
            self._writer_now().write_table(pyarrow.Table.from_arrays(arrays, schema=self._schema))

    def _writer_now(self) -> pyarrow.parquet.ParquetWriter:
        import pyarrow.parquet

        if self._writer is None:
            self._writer = pyarrow.parquet.ParquetWriter(self._file, self._schema, compression="zstd")
        return self._writer

    def _schema_for(self, joints: int) -> pyarrow.Schema:
        import pyarrow

        kinds = {
            "source": pyarrow.dictionary(pyarrow.int32(), pyarrow.string()),
            "frame": pyarrow.int64(),
            "time_s": pyarrow.float64(),
            "id": pyarrow.int64(),
        }
        return pyarrow.schema([(name, kinds.get(name, pyarrow.float32())) for name in columns(joints)])

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise SinkError(f"{self.path} cannot be written further: {reason(error)}") from error


class CocoSink(Sink):
    """COCO results: a list of {image_id, category_id, keypoints, bbox, score, source, frame, time_s, id}.

    image_id numbers the frames of the whole run, `frame` those of a source; for a single source they are equal.
    """

    needs_picture = False

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = open_file(path)
        self._started = False
        self._last = ("", -1)  # source and index of the last frame
        self._first_id = 0  # of the source's frame 0

    def write(self, result: Result, picture: NDArray[np.uint8]) -> None:
        frame = result.frame
        source, index = self._last
        if index >= 0 and (frame.source != source or frame.index <= index):
            self._first_id += index + 1
        self._last = (frame.source, frame.index)
        entries = [
            {
                "image_id": self._first_id + frame.index,
                "category_id": PERSON,
                "keypoints": [value for joint in one["keypoints"] for value in joint],
                "bbox": one["bbox"],
                "score": one["score"],
                "source": frame.source,
                "frame": frame.index,
                "time_s": round(frame.time_s, 6),
                **({"id": one["id"]} if "id" in one else {}),
            }
            for one in person_entries(result.people)
        ]
        if entries:
            separator = ",\n" if self._started else "[\n"
            self._started = True
            write_all(self._file, (separator + ",\n".join(map(json.dumps, entries))).encode(), self.path)

    def close(self) -> None:
        if self._file.closed:
            return
        try:
            write_all(self._file, b"\n]\n" if self._started else b"[]\n", self.path)
        finally:
            self._file.close()
