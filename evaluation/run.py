"""From a step and its images to results and scores: the pipeline as it is, without its output filter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from core.errors import SourceError
from evaluation.annotations import Annotations
from evaluation.images import AnnotatedImages
from evaluation.score import Results, score_results
from pipeline.pose import PosePipeline
from pipeline.step import FrameStep


@dataclass(frozen=True)
class Evaluation:
    """scores: as `score_results`. results: COCO results, images in the annotations' order, people in the decode's.

    image_ids: of the images that were seen and scored. missing, unreadable: names of those that were not.
    """

    scores: dict[str, float]
    results: Results
    image_ids: list[int]
    missing: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)


def evaluate_step(
    step: FrameStep,
    images: AnnotatedImages,
    annotations: Annotations,
    *,
    progress: Callable[[int], None] = lambda seen: None,
) -> Evaluation:
    """Run every image through the step and score its people by their `score`, the authors' person score.

    One difference from the authors' results: a joint that even refine did not find stays at the frame's corner (0, 0),
    theirs is where the input's corner falls, some pixels outside; and it is left out of `bbox`.
    The step's DecodeOptions must be unfiltered. Closes the images, not the step. progress: called with images seen.
    Raises ValueError if the model's joints are not the annotations', SourceError if no image could be read.
    """
    check_joints(step, annotations)
    results: Results = []
    image_ids: list[int] = []
    frames = PosePipeline(step=step).run(images, steps=())  # as decoded: no filter, no smoothing
    try:
        for result in frames:
            image_id = images.images[result.frame.index][0]
            image_ids.append(image_id)
            results += [{**one, "category_id": annotations.category_id} for one in result.people.to_coco(image_id)]
            progress(len(image_ids))
    finally:
        frames.close()
    if not image_ids:
        names = ", ".join((images.missing + images.unreadable)[:3])
        raise SourceError(
            f"none of the {len(images.images)} annotated images could be read from {images.name}: {names}"
        )
    scores = score_results(annotations, results, image_ids)
    return Evaluation(scores, results, image_ids, images.missing, images.unreadable)


def check_joints(step: FrameStep, annotations: Annotations) -> None:
    """Raises ValueError if the model finds other joints than are annotated."""
    if step.spec.num_joints != annotations.joints:
        raise ValueError(
            f"{step.spec.name} finds {step.spec.num_joints} joints ({step.spec.joint_set}), {annotations.path} has "
            f"{annotations.joints}; expected a model and annotations of the same joint set"
        )
