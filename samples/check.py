"""Compares the output of `make demo` with the clip's true people: python -m samples.check VIDEO JSONL.

The video must decode to its last frame, and the JSON must have one line per frame. People are matched by OKS, as in
COCO's keypoint evaluation: a detected person is correct if its OKS with an unmatched true person is at least 0.5.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

import av
import numpy as np
from numpy.typing import NDArray

from core.coco import CocoAnnotation, CocoFile
from core.command_line import CommandParser
from core.oks import joint_similarities

TRUTH = Path(__file__).parent / "crowd.json"
MIN_OKS = 0.5
MIN_JOINTS = 6  # true people with fewer joints in the picture are ignored

Floats = NDArray[np.float64]


class Found(TypedDict):
    """A person of a JSON line."""

    score: float
    keypoints: list[list[float]]


def oks(found: Floats, true: Floats, area: float) -> float:
    """Object keypoint similarity of (K, 2+) found x, y and (K, 3) true x, y, v; `area` in square pixels."""
    labelled = true[:, 2] > 0
    return float(joint_similarities(found[:, :2], true[:, :2], area)[labelled].mean()) if labelled.any() else 0.0


def count_matches(found: Sequence[Found], true: Sequence[CocoAnnotation]) -> tuple[int, int, int]:
    """(hits, false alarms, misses) of one frame. Detected people, in order of falling score, are matched to the most
    similar unmatched true person."""
    unmatched = list(range(len(true)))
    keypoints = [np.array(person["keypoints"], float).reshape(-1, 3) for person in true]
    counted = {t for t in unmatched if true[t]["num_keypoints"] >= MIN_JOINTS}
    hits = false_alarms = 0
    for person in sorted(found, key=lambda p: -p["score"]):
        pose = np.array(person["keypoints"], float)
        similarity = {t: oks(pose, keypoints[t], true[t]["area"]) for t in unmatched}
        best = max(similarity, key=lambda t: similarity[t], default=None)
        if best is None or similarity[best] < MIN_OKS:
            false_alarms += 1
            continue
        unmatched.remove(best)
        hits += best in counted
    return hits, false_alarms, len(counted & set(unmatched))


def count_frames(video: Path) -> int:
    """The number of frames that can be decoded; raises av.FFmpegError for a damaged file."""
    with av.open(str(video)) as container:
        return sum(1 for _ in container.decode(video=0))


def main() -> int:
    parser = CommandParser(prog="python -m samples.check", description=__doc__.splitlines()[0])
    parser.add_argument("video", type=Path, help="the annotated video")
    parser.add_argument("people", type=Path, help="the JSON lines")
    parser.add_argument("--recall", type=float, default=0.0, help="minimum share of the true people that are detected")
    parser.add_argument(
        "--precision", type=float, default=0.0, help="minimum share of the detected people that are true"
    )
    options = parser.parse_args()

    truth: CocoFile = json.loads(TRUTH.read_text())
    true: dict[int, list[CocoAnnotation]] = defaultdict(list)
    for annotation in truth["annotations"]:
        true[annotation["image_id"]].append(annotation)
    lines = [json.loads(line) for line in options.people.read_text().splitlines()]
    frames = len(truth["images"])

    problems = []
    if (decoded := count_frames(options.video)) != frames:
        problems.append(f"{options.video} has {decoded} frames; expected {frames}, as in the clip")
    if [line["frame"] for line in lines] != list(range(frames)):
        problems.append(f"{options.people} has {len(lines)} lines; expected frames 0 to {frames - 1} in order")
    totals = np.sum([count_matches(line["people"], true[line["frame"]]) for line in lines], axis=0, dtype=int)
    hits, false_alarms, misses = (int(n) for n in np.broadcast_to(totals, 3))
    recall, precision = hits / max(1, hits + misses), hits / max(1, hits + false_alarms)
    print(
        f"{frames} frames, {hits + misses} true people: recall {recall:.3f}, precision {precision:.3f} at OKS {MIN_OKS}"
    )
    if recall < options.recall:
        problems.append(f"recall is {recall:.3f}; expected at least {options.recall}")
    if precision < options.precision:
        problems.append(f"precision is {precision:.3f}; expected at least {options.precision}")
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
