"""JsonSink: writes people as JSON lines, one per frame."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NotRequired, TypedDict

import numpy as np
from numpy.typing import NDArray

from pipeline.sinks.base import Sink, open_file, write_all
from pipeline.types import People, Result

LINE_DECIMALS, SCORE_DECIMALS = 2, 4


class PersonEntry(TypedDict):
    id: NotRequired[int]  # once the person was seen clearly or twice; not with --no-ids
    score: float
    bbox: list[float]
    keypoints: list[list[float]]


class JsonSink(Sink):
    """Writes one line of JSON per frame, each by one system call, so that readers see complete lines."""

    needs_picture = False

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = open_file(path)

    def write(self, result: Result, picture: NDArray[np.uint8]) -> None:
        write_all(self._file, json_line(result).encode() + b"\n", self.path)

    def close(self) -> None:
        self._file.close()


def json_line(result: Result) -> str:
    """The frame as JSON: coordinates rounded to 0.01 px, scores to 0.0001; no newline."""
    frame, people = result.frame, result.people
    return json.dumps(
        {
            "source": frame.source,
            "frame": frame.index,
            "time_s": round(frame.time_s, 6),
            "people": person_entries(people),
        }
    )


def person_entries(people: People) -> list[PersonEntry]:
    """The rounded values of each person for all outputs: id if there is one, score, bbox x, y, w, h and K keypoints x,
    y, score. Boxes and keypoints are in frame pixels.
    """
    boxes = np.round(people.boxes().astype(np.float64), LINE_DECIMALS).tolist()
    xy = np.round(people.keypoints.astype(np.float64), LINE_DECIMALS).tolist()
    joint_scores = np.round(people.keypoint_scores.astype(np.float64), SCORE_DECIMALS).tolist()
    scores = np.round(people.scores.astype(np.float64), SCORE_DECIMALS).tolist()
    entries: list[PersonEntry] = [
        {
            "score": scores[p],
            "bbox": boxes[p],
            "keypoints": [[x, y, s] for (x, y), s in zip(xy[p], joint_scores[p], strict=True)],
        }
        for p in range(len(people))
    ]
    return [{"id": i, **entry} if i else entry for i, entry in zip(people.ids.tolist(), entries, strict=True)]
