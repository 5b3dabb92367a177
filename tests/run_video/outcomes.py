"""The positions in a clip of one blob that moves to the right, and functions that read the command's outputs."""

from __future__ import annotations

import json
import re
from pathlib import Path

import av

WH = (160, 128)
COUNT = 12

Outcome = tuple[int, list[str], list[str]]  # status, lines of stdout, of stderr


def position(i: int) -> tuple[float, float]:
    """The blob's position in frame `i`."""
    return 30.0 + 8 * i, 64.0


def json_lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def frames_of(path: Path) -> list:
    with av.open(str(path)) as container:
        return list(container.decode(video=0))


def check_refused(outcome: Outcome, message: str, status: int = 2) -> None:
    """Check the exit status, and that stderr is one line that matches `message`."""
    got, _, err = outcome
    assert got == status, err
    assert len(err) == 1, err
    assert re.search(message, err[0]), err
    assert err[0].startswith("run_video.py: ")
    assert "Traceback" not in err[0]
