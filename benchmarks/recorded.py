"""People that the bundled model found in the drawn clip, recorded once, so that a new model changes no benchmark.

python -m benchmarks.recorded --record      runs the model again and writes the file
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from evaluation import Annotations, load_annotations
from pipeline import People, PosePipeline, open_source

FILE = Path(__file__).parent / "crowd_people.npz"
SAMPLES = Path(__file__).parents[1] / "samples"


def record(path: Path = FILE) -> None:
    """Record the people after the decode and its output filter, before any of `people_steps`."""
    with PosePipeline("tiny") as pose:
        frames = [result.people for result in pose.run(open_source(str(SAMPLES / "crowd.mp4")), steps=())]
    np.savez_compressed(
        path,
        counts=np.array([len(people) for people in frames], np.int32),
        keypoints=np.concatenate([people.keypoints for people in frames]).round(2),
        keypoint_scores=np.concatenate([people.keypoint_scores for people in frames]).round(4),
        scores=np.concatenate([people.scores for people in frames]).round(4),
    )


def recorded_people(path: Path = FILE) -> list[People]:
    """The people of each frame of the clip."""
    with np.load(path) as arrays:
        ends = np.cumsum(arrays["counts"])[:-1]
        parts = zip(*(np.split(arrays[name], ends) for name in ("keypoints", "keypoint_scores", "scores")), strict=True)
        return [People(*part) for part in parts]


def clip_truth() -> Annotations:
    return load_annotations(SAMPLES / "crowd.json")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recorded", description=__doc__.partition("\n")[0])
    parser.add_argument("--record", action="store_true", help="run the model and write the file")
    if parser.parse_args().record:
        record()
    print(f"{FILE.name}: {sum(len(people) for people in recorded_people())} people in {len(recorded_people())} frames")
    return 0


if __name__ == "__main__":
    sys.exit(main())
