"""Signals at every stage: during the start, between frames, at the end; alone, twice, of several kinds."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.faults.case import Case, Command

STATUS = {"SIGINT": 130, "SIGTERM": 143, "SIGHUP": 129}


def at(
    *signals: tuple[float, str], running: bool, whole: bool = False, options: tuple[str, ...] = ()
) -> Callable[[Path, random.Random], Command]:
    """running: the first delay counts from the first line of JSON on, else from the start of the process."""

    def make(folder: Path, rng: random.Random) -> Command:
        video, lines = folder / "out.mp4", folder / "out.jsonl"
        clip = Path(os.environ["FAULTS_SHARED"]) / "clip.mp4"
        return Command(
            argv=[str(clip), "--loop", "--limit", "2000", "--save", str(video), "--json", str(lines), *options],
            signals=signals,
            after=lines if running else None,
            whole=whole,
            limit_s=60,
            statuses=[STATUS[name] for _, name in signals],
            words="interrupted",
            outputs=(video, lines),
            same_count=(video, lines),
        )

    return make


def cases() -> Iterator[Case]:
    for name in STATUS:
        for step in range(12):  # from before main() to the first frames: reading, opening the model, the outputs
            delay = 0.015 * step
            yield Case("signals", f"{name} {delay * 1e3:.0f} ms after the start", at((delay, name), running=False))
        for delay in (0.0, 0.005, 0.03, 0.1, 0.3):
            yield Case("signals", f"{name} {delay * 1e3:.0f} ms after the first line", at((delay, name), running=True))
        for delay in (0.05, 0.2, 0.5, 1.0, 2.0):
            words = f"{name} {delay * 1e3:.0f} ms after the first import"
            yield Case("signals", words, at((delay, name), running=False, whole=True))
        for other in STATUS:
            yield Case("signals", f"{name}, then {other} at once", at((0.1, name), (0.0, other), running=True))
            yield Case("signals", f"{name}, then {other} 5 ms later", at((0.1, name), (0.005, other), running=True))
        for option in ("--realtime", "--serial", "--benchmark"):
            yield Case("signals", f"{name} with {option}", at((0.1, name), running=True, options=(option,)))
