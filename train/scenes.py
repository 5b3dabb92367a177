"""Synthetic crowded scenes like the bundled clip, with other people, paths and backgrounds."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np

from samples.make_crowd import FPS, FRAMES, SEED, Walker, draw_frames, truth_of

FIRST_SEED = 1000  # the clip has another seed
CAST = (6, 11)  # number of people in a scene: from, below


def write_scenes(folder: Path, scenes: int, frames: int = 10) -> int:
    """Draw `frames` pictures of each scene into `folder`, with their labels.json. Returns the number of pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    annotations = []
    count = 0
    for scene in range(scenes):
        seed = FIRST_SEED + scene
        if seed == SEED:
            raise ValueError(f"seed {SEED} is the bundled clip's, which is reserved for measurements")
        cast = random_cast(np.random.default_rng(seed))
        for image, people in draw_frames(FRAMES, every=FRAMES // frames, seed=seed, cast=cast):
            cv2.imwrite(str(folder / f"{count:06d}.png"), image)
            annotations += [person | {"image_id": count} for person in people]
            count += 1
    (folder / "labels.json").write_text(json.dumps(truth_of(annotations, count)))
    return count


def random_cast(rng: np.random.Generator) -> list[Walker]:
    """Random people who walk through the picture or, some of them, stand and wave."""
    people = []
    for _ in range(int(rng.integers(*CAST))):
        z = float(rng.uniform(1.5, 3.6))
        waves = bool(rng.random() < 0.15)
        to_the_right = bool(rng.random() < 0.5)
        starts_s = float(rng.uniform(-1.0, FRAMES / FPS - 2))
        side = float(rng.uniform(0.6, 0.75)) * z * (-1 if to_the_right else 1)  # just outside the picture
        people.append(
            Walker(
                x=float(rng.uniform(-0.5, 0.5)) * z if waves or starts_s < 0 else side,
                z=z,
                yaw=float(rng.normal(0, 0.4)) if waves else float(rng.normal(1.55 if to_the_right else -1.55, 0.45)),
                starts_s=starts_s,
                size=float(rng.uniform(0.92, 1.05)),
                steps_per_s=float(rng.uniform(1.6, 1.9)),
                energy=float(rng.uniform(0.9, 1.1)),
                waves=waves,
            )
        )
    return people
