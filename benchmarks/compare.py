"""Measure two commits alternately in one session: python -m benchmarks.compare BASE [OTHER] -- COMMAND…

The command is a Python file of the project with its arguments, run in a worktree of each commit. Every number in the
JSON object that it prints last is compared, and its wall time. The turns are A B B A A B …, after one turn of each that
does not count (compilation, caches), so that a machine that becomes warm or busy affects both equally. OTHER "."
(default) means the files as they are now, committed or not.

    python -m benchmarks.compare HEAD~3 -- run_video.py samples/crowd.mp4 --benchmark --stats json
    python -m benchmarks.compare v0.1.0 main --turns 7 -- -m benchmarks.decode
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

WORKING_TREE = "."
WALL = "wall_s"


def main(argv: Sequence[str] | None = None) -> int:
    arguments, command = _parse(sys.argv[1:] if argv is None else list(argv))
    repository = Path(_git(Path.cwd(), "rev-parse", "--show-toplevel"))
    with ExitStack() as stack:
        try:
            places = [stack.enter_context(checked_out(repository, name)) for name in arguments.commits]
            turns = measure(places, command, arguments.turns)
        except (subprocess.CalledProcessError, ValueError) as error:
            print(f"compare: {' '.join(_reason(error).split())}", file=sys.stderr)
            return 1
    for line in table(arguments.commits, turns):
        print(line)
    return 0


@contextmanager
def checked_out(repository: Path, commit: str) -> Iterator[Path]:
    """A folder with the files of this commit; it is removed afterwards."""
    if commit == WORKING_TREE:
        yield repository
        return
    with tempfile.TemporaryDirectory(prefix="compare-") as folder:
        place = Path(folder) / "tree"
        _git(repository, "worktree", "add", "--detach", str(place), commit)
        try:
            yield place
        finally:
            _git(repository, "worktree", "remove", "--force", str(place))


def measure(places: Sequence[Path], command: Sequence[str], turns: int) -> list[list[dict[str, float]]]:
    """For each place, the numbers of each turn that counts."""
    numbers: list[list[dict[str, float]]] = [[] for _ in places]
    for turn in range(turns + 1):
        order = range(len(places)) if turn % 2 == 0 else reversed(range(len(places)))
        for which in order:
            taken = run_once(places[which], command)
            if turn > 0:
                numbers[which].append(taken)
    return numbers


def run_once(place: Path, command: Sequence[str]) -> dict[str, float]:
    """Wall time, and every number of the JSON object on the last line of stdout, if there is one."""
    started = time.perf_counter()
    done = subprocess.run([sys.executable, *command], cwd=place, capture_output=True, text=True, check=True)
    numbers = {WALL: time.perf_counter() - started}
    lines = done.stdout.strip().splitlines()
    try:
        printed = json.loads(lines[-1]) if lines else None
    except ValueError:
        printed = None
    return numbers | dict(flatten(printed)) if isinstance(printed, dict) else numbers


def flatten(value: object, name: str = "") -> Iterator[tuple[str, float]]:
    """{"a": {"b": 1}} -> ("a.b", 1.0); values that are not numbers are left out."""
    if isinstance(value, bool):
        return
    if isinstance(value, int | float):
        yield name, float(value)
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from flatten(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from flatten(inner, f"{name}[{index}]")


def table(commits: Sequence[str], turns: Sequence[Sequence[dict[str, float]]]) -> Iterator[str]:
    """A line for each number that both have: medians, their difference, and whether the turns of the two overlap."""
    names = [name for name in turns[0][0] if all(name in taken for side in turns for taken in side)]
    width = max(len(name) for name in names)
    count = len(turns[0])
    yield f"{'':{width}}  {commits[0]:>12}  {commits[1]:>12}  difference   (medians of {count} turns)"
    for name in names:
        a, b = ([taken[name] for taken in side] for side in turns)
        first, second = statistics.median(a), statistics.median(b)
        change = f"{(second - first) / first:+10.1%}" if first else f"{second - first:+10.4g}"
        overlap = min(a) <= max(b) and min(b) <= max(a)
        verdict = "same" if first == second and overlap else "within the spread of the turns" if overlap else "differs"
        yield f"{name:{width}}  {first:12.5g}  {second:12.5g}  {change}   {verdict}"


def _parse(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    split = argv.index("--") if "--" in argv else len(argv)
    own, command = argv[:split], argv[split + 1 :]
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.compare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("base", metavar="BASE", help="a commit")
    parser.add_argument(
        "other", metavar="OTHER", nargs="?", default=WORKING_TREE, help="another; default: the files now"
    )
    parser.add_argument("--turns", type=int, default=5, metavar="N", help="of each (default: %(default)s)")
    arguments = parser.parse_args(own)
    if not command:
        parser.error("no command; expected -- and a Python file of the project with its arguments")
    if arguments.turns < 1:
        parser.error(f"--turns is {arguments.turns}; expected a positive number")
    arguments.commits = (arguments.base, arguments.other)
    return arguments, command


def _git(repository: Path, *words: str) -> str:
    done = subprocess.run(["git", *words], cwd=repository, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _reason(error: Exception) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        last = (error.stderr or "").strip().splitlines()[-1:]
        return f"{' '.join(error.cmd)} ended with {error.returncode}: {''.join(last)}"
    return str(error)


if __name__ == "__main__":
    sys.exit(main())
