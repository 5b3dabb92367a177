"""How a worker opens the model that a recipe names: exactly as run_video.py does."""

from __future__ import annotations

import argparse

from cluster.jobs import Recipe
from commands.pose import open_pose as open_as_asked
from pipeline import PosePipeline


def open_pose(recipe: Recipe) -> PosePipeline:
    """Raises what PosePipeline raises."""
    return open_as_asked(argparse.Namespace(**recipe.options))
