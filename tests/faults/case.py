"""A case of the campaign: what is prepared, what is typed, what must come of it. And how the answer is judged."""

from __future__ import annotations

import hashlib
import json
import random
import re
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

LIMIT_S = 60.0  # a case takes 0.1 to 2 s; the machine may be busy
IMAGES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


@dataclass(frozen=True, kw_only=True)
class Command:
    """What is typed, and what happens meanwhile.

    argv: of run_video.py; --model and --engine are added where it names none. statuses: that are right.
    words: a pattern that the line on stderr must hold. outputs: files that, if they exist, must be readable.
    same_count: a video and JSON lines that must hold as many frames. inputs: files that must not change.
    signals: (seconds, name), each after the one before; they begin when `after` has content, or at once.
    fsize: largest file that the process may write, in bytes. closed: "stdout" or "stderr", a pipe without a reader.
    patch: pipeline.sources.video's time limits. meanwhile: called in the test once `after` has content.
    whole: a process of its own from the interpreter on, not a fork of one that has imported everything.
    """

    argv: Sequence[str]
    statuses: Sequence[int] = (0, 1, 2)
    words: str = ""
    outputs: Sequence[Path] = ()
    same_count: tuple[Path, Path] | None = None
    inputs: Sequence[Path] = ()
    signals: Sequence[tuple[float, str]] = ()
    after: Path | None = None
    fsize: int | None = None
    closed: str | None = None
    patch: dict[str, float] = field(default_factory=dict)
    meanwhile: Callable[[], object] | None = None
    whole: bool = False
    limit_s: float = LIMIT_S


@dataclass(frozen=True)
class Case:
    """make: writes what the case needs into a folder; all that is random in it comes from its generator."""

    kind: str
    name: str
    make: Callable[[Path, random.Random], Command]

    def __str__(self) -> str:
        return f"{self.kind}-{self.name}"

    def prepare(self, folder: Path) -> Command:
        return self.make(folder, random.Random(str(self)))


@dataclass(frozen=True)
class Answer:
    """status: None if it had to be killed at its limit; negative if a signal ended it (a crash)."""

    status: int | None
    out: str
    err: str
    seconds: float
    peak_mb: float


def problems(command: Command, answer: Answer, hashes: dict[Path, str]) -> list[str]:
    """What is wrong with the answer; empty if it is a good one."""
    if answer.status is None:
        return [f"hung: killed after {command.limit_s:g} s"]
    found = []
    lines = answer.err.splitlines()
    if answer.status not in command.statuses:
        found.append(f"status {answer.status}, expected one of {list(command.statuses)}")
    if "Traceback" in answer.err or "Traceback" in answer.out:
        found.append("a traceback")
    if answer.status == 0 and lines:
        found.append(f"status 0, but {len(lines)} lines on stderr")
    if answer.status != 0 and command.closed != "stderr":
        if len(lines) != 1:
            found.append(f"{len(lines)} lines on stderr, expected one")
        elif not lines[0].startswith("run_video.py: "):
            found.append("the line does not begin with the command")
        if not re.search(command.words, answer.err):
            found.append(f"the line does not say {command.words!r}")
    for path in command.outputs:
        found += unreadable(path)
    if command.same_count is not None:
        video, people = command.same_count
        counts = len(frames_of(video)) if video.exists() else 0, len(lines_of(people)) if people.exists() else 0
        if counts[0] != counts[1]:
            found.append(f"{counts[0]} frames in the video, {counts[1]} in the JSON lines")
    found += [f"{path.name} was changed" for path, told in hashes.items() if hash_of(path) != told]
    return found


def unreadable(path: Path) -> list[str]:
    """What is wrong with an output."""
    if not path.exists() or not stat.S_ISREG(path.stat().st_mode):
        return []
    try:
        if path.suffix == ".jsonl":
            lines_of(path)
        elif path.suffix in IMAGES:
            if cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR) is None:
                return [f"{path.name} is no picture"]
        elif not frames_of(path):
            return [f"{path.name} holds no frame"]
    except (OSError, ValueError) as error:
        return [f"{path.name} is not readable: {error}"]
    return []


def frames_of(path: Path) -> list[Any]:
    with av.open(str(path)) as container:
        return list(container.decode(video=0))


def lines_of(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def hash_of(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
    except OSError:  # a name that is too long
        return ""
