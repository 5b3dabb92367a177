"""Opens a recipe's model in a worker, exactly as run_video.py does."""

from __future__ import annotations

import argparse

from cluster.jobs import Recipe
from commands.pose import open_pose as open_as_asked
from commands.pose import open_steps as steps_as_asked
from pipeline import PosePipeline
from pipeline.people import PeopleStep


def open_pose(recipe: Recipe) -> PosePipeline:
    """Raises what PosePipeline raises."""
    return open_as_asked(argparse.Namespace(**recipe.options))


def open_steps(recipe: Recipe) -> tuple[PeopleStep, ...]:
    """The steps that are applied to one file's people. By default they assign ids, and do not smooth or hide anyone."""
    return steps_as_asked(argparse.Namespace(**{"ids": True, "smooth": None, "min_score": 0.0, **recipe.options}))
