"""Opens the pipeline that a command's model and people options describe."""

from __future__ import annotations

import argparse

from core.progress import Progress, unseen
from kernels.options import DecodeOptions
from pipeline import LIVE_OPTIONS, PosePipeline
from pipeline.people import PeopleStep, people_steps


def open_pose(
    arguments: argparse.Namespace, progress: Progress = unseen, *, frame_wh: tuple[int, int] | None = None
) -> PosePipeline:
    """arguments: parsed options of `add_model_options` and `add_people_options`. Raises what PosePipeline raises."""
    options = DecodeOptions(
        max_people=arguments.max_people,
        min_score=arguments.min_score,
        min_joint=arguments.min_joint,
        duplicate_oks=LIVE_OPTIONS.duplicate_oks,
    )
    return PosePipeline(
        arguments.model,
        engine=arguments.engine,
        size=arguments.size,
        flip=arguments.flip,
        device=arguments.device,
        gpu=arguments.gpu,
        frame_wh=frame_wh,
        batch=arguments.batch,
        options=options,
        progress=progress,
    )


def open_steps(arguments: argparse.Namespace, *, watched: bool = False) -> tuple[PeopleStep, ...]:
    """The steps that one run applies to people after the decode. arguments: parsed options of `add_people_options`.

    watched: a live source is displayed; it is then smoothed unless the arguments disable it.
    Raises ValueError for smoothing without ids.
    """
    smooth = watched and arguments.ids if arguments.smooth is None else arguments.smooth
    return people_steps(ids=arguments.ids, smooth=smooth, min_score=arguments.min_score)
