"""How fast this machine is, over engines, models, sizes, batches and flip: python -m benchmarks.fps --out report/

Every combination runs the whole pipeline on a clip, from the file to the people, and the engine alone. Each round takes
them in turn, so that a machine that becomes warm affects all equally. An engine that is not installed is skipped, and
the report gives the reason. The report is fps.md (a row for each combination, the machine below), fps.json and fps.png.

    python -m benchmarks.fps --engines openvino onnxruntime --sizes 256 320 --flip both --out report
    python -m benchmarks.fps --models tiny w32-512 --engines tensorrt --source street.mp4 --out report

    FPS            end to end: frames a second of a file, after a warm-up, all but drawing and writing
    engine         frames a second of the network alone, run as in the pipeline, measured before and after
    pass           p50, p95 and p99 of one pass alone, with the whole device
    latency        p50, p95 and p99 from reading a frame to its people, one frame at a time
"""

from __future__ import annotations

import argparse
import itertools
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.fps_measure import Combination, Round, Settings, Skipped, measure, summarise
from benchmarks.fps_report import write_report
from commands.arguments import MAX_BATCH
from commands.machine import describe_machine
from core.command_line import FAILED, OK, REFUSED, CommandParser, complain, count, file_path, input_side, number
from core.errors import PoseError
from core.progress import Progress, progress_bar
from core.signals import stop_of, stop_signals
from export.zoo import DEFAULT_MODEL
from pipeline import open_source
from pipeline.models import ENGINES

PROG = "python -m benchmarks.fps"
CLIP = Path(__file__).parents[1] / "samples" / "crowd.mp4"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status. Failures are one line each on stderr."""
    words = list(sys.argv[1:] if argv is None else argv)
    arguments = parse(words)
    command = f"{PROG} {shlex.join(words)}".rstrip()
    try:
        check(arguments)
    except (PoseError, ValueError, OSError) as error:
        return complain(PROG, error, REFUSED)
    found: dict[Combination, list[Round]] = {}
    skipped: list[Skipped] = []
    status, stopped = OK, None
    try:
        with stop_signals(), progress_bar() as progress:
            sweep(arguments, found, skipped, progress)
    except KeyboardInterrupt as error:
        stopped = stop_of(error)
    measured = [summarise(combination, rounds) for combination, rounds in found.items() if rounds]
    if measured or skipped:
        try:
            write_report(arguments.out, measured, skipped, describe_machine(), source=arguments.source, command=command)
        except (PoseError, OSError) as error:
            return complain(PROG, error, FAILED)
        print((arguments.out / "fps.md").read_text(encoding="utf-8"), end="")
    for one in skipped:
        if one.failed:
            status = complain(PROG, f"{one.combination.words} failed: {one.reason}", FAILED)
    if stopped is not None:
        return complain(PROG, f"{stopped}; {len(measured)} combinations are in the report", stopped.status)
    if not measured:
        return complain(PROG, "nothing could be measured here; see what was skipped", FAILED)
    return status


def sweep(
    arguments: argparse.Namespace, found: dict[Combination, list[Round]], skipped: list[Skipped], progress: Progress
) -> None:
    """Fills `found` round after round, and `skipped` with what cannot be measured; both are right whenever it ends."""
    flips = {"off": (False,), "on": (True,), "both": (False, True)}[arguments.flip]
    combinations = [
        Combination(*parts)
        for parts in itertools.product(arguments.engines, arguments.models, arguments.sizes, arguments.batches, flips)
    ]
    settings = Settings(arguments.source, frames=arguments.frames, seconds=arguments.seconds)
    turns = [(turn, combination) for turn in range(arguments.rounds) for combination in combinations]
    for done, (turn, combination) in enumerate(turns):
        if any(one.combination == combination for one in skipped):
            continue
        progress(f"round {turn + 1} of {arguments.rounds}: {combination.words}", done / len(turns))
        result = measure(combination, settings)
        if isinstance(result, Skipped):
            skipped.append(result)
        else:
            found.setdefault(combination, []).append(result)


def check(arguments: argparse.Namespace) -> None:
    """What would be found out only after minutes. Raises ValueError, SourceError, OSError."""
    with open_source(str(arguments.source)) as source:
        if source.live:
            raise ValueError(f"--source {arguments.source} is live; expected a video file, whose frames wait")
    arguments.out.mkdir(parents=True, exist_ok=True)


def parse(words: Sequence[str]) -> argparse.Namespace:
    description, _, examples = (__doc__ or "").partition("\n\n")
    parser = CommandParser(prog=PROG, description=description, epilog=examples)
    engines = [engine for engine in ENGINES if engine != "auto"]
    parser.add_argument("--engines", nargs="+", default=engines, choices=engines, metavar="E", help="default: all")
    parser.add_argument(
        "--models", nargs="+", default=[DEFAULT_MODEL], metavar="NAME|FILE", help=f"default: {DEFAULT_MODEL}, bundled"
    )
    parser.add_argument(
        "--sizes", nargs="+", type=input_side, default=[None], metavar="N", help="short sides (default: the model's)"
    )
    batch = number(int, 1, MAX_BATCH, f"a whole number from 1 to {MAX_BATCH}")
    parser.add_argument("--batches", nargs="+", type=batch, default=[1], metavar="N", help="frames a pass (default: 1)")
    parser.add_argument("--flip", choices=("off", "on", "both"), default="off", help="default: off")
    parser.add_argument("--source", type=file_path, default=CLIP, metavar="FILE", help="default: the bundled clip")
    parser.add_argument("--frames", type=count, default=120, metavar="N", help="of a run, after a warm-up (120)")
    parser.add_argument("--rounds", type=count, default=2, metavar="N", help="of all combinations (2)")
    seconds = number(float, 0.01, 600, "seconds from 0.01 to 600")
    parser.add_argument("--seconds", type=seconds, default=1.0, metavar="S", help="of the engine alone, thrice (1)")
    parser.add_argument("--out", type=file_path, required=True, metavar="DIR", help="folder of the report")
    return parser.parse_args(words)


if __name__ == "__main__":
    sys.exit(main())
