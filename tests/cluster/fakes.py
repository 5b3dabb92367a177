"""Steps and pictures with known results, for workers that are real processes."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from cluster.jobs import Recipe
from core.errors import EngineError
from pipeline import PosePipeline
from pipeline.types import People
from tests.pipeline.fakes import FakeStep, person_at

WH = (8, 6)
# blue of the first pixel: what the step does with the picture
PLAIN, KILLS, RAISES, SLEEPS = 0, 10, 20, 30


class PictureStep(FakeStep):
    """One person in each picture, at (green, red) of its first pixel. Blue: nothing, die, raise, or take a second."""

    def prepare(self, slot: int, pictures: Sequence[Any]) -> None:
        self.pixel = [int(value) for value in pictures[0][0, 0]]
        self.in_slot[slot] = [0]

    def infer(self, slot: int) -> None:
        if self.pixel[0] == KILLS:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.pixel[0] == RAISES:
            raise ZeroDivisionError("as asked")
        if self.pixel[0] == SLEEPS:
            time.sleep(1.0)

    def finish(self, slot: int) -> list[People]:
        self.in_slot[slot] = None
        return [person_at(self.pixel[1], self.pixel[2])]


def open_pictures(recipe: Recipe) -> PosePipeline:
    return PosePipeline(step=PictureStep())


def open_nothing(recipe: Recipe) -> PosePipeline:
    raise EngineError("no engine here")


def open_deadly(recipe: Recipe) -> PosePipeline:
    os._exit(7)


def write_picture(
    path: Path, x: int, y: int = 0, *, what: int = PLAIN, wh: tuple[int, int] = WH, noise: bool = False
) -> Path:
    """what: one of PLAIN, KILLS, RAISES, SLEEPS. noise: fill the rest with noise, which does not compress."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.full((wh[1], wh[0], 3), (what, x, y), np.uint8)
    if noise:
        image[1:] = np.random.default_rng(x).integers(0, 256, image[1:].shape, np.uint8)
    assert cv2.imwrite(str(path), image)
    return path
