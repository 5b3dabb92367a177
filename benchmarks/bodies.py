"""People whom no body could be, with and without `drop_impossible`: python -m benchmarks.bodies VIDEO...

Counts people of the default model on the first 60 frames of each video with `evaluation.limbs.impossible_limbs`.
"""

from __future__ import annotations

import sys

import numpy as np

from core.command_line import OK, REFUSED, CommandParser, complain
from core.errors import PoseError
from evaluation.limbs import impossible_limbs
from pipeline import PosePipeline, open_source
from pipeline.people import drop_impossible

PROG = "python -m benchmarks.bodies"
FRAMES = 60


def main(argv: list[str] | None = None) -> int:
    parser = CommandParser(prog=PROG, description=__doc__)
    parser.add_argument("videos", nargs="+", metavar="VIDEO")
    videos = parser.parse_args(argv).videos
    print("| video | without `drop_impossible` | with it |\n| --- | ---: | ---: |")
    total = np.zeros((2, 2), np.int64)  # without and with; impossible people and all
    try:
        with PosePipeline() as pose:
            for video in videos:
                counts = np.zeros_like(total)
                with open_source(video) as source:
                    for result in pose.run(source, limit=FRAMES, steps=()):
                        both = result.people, drop_impossible(result.people)
                        counts += [(impossible_limbs(people).sum(), len(people)) for people in both]
                total += counts
                print(_row(video, counts), flush=True)
    except (PoseError, OSError) as error:
        return complain(PROG, error, REFUSED)
    print(_row("all", total))
    return OK


def _row(name: str, counts: np.ndarray) -> str:
    return f"| {name} | {' | '.join(f'{wrong} of {people}' for wrong, people in counts)} |"


if __name__ == "__main__":
    sys.exit(main())
