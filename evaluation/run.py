"""Runs a step over annotated images and scores its people: the pipeline without its output filter."""

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
    """scores: as `score_results`. results: COCO results, images in the annotations' order, people in decode order.

    image_ids: of the images that were read and scored. missing, unreadable: names of the others.
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
    """Run every image through the step and score the people, ranked by `score`, as in the authors' evaluation.

    One difference from the authors' results: a joint that refine did not find either is at (0, 0) of the frame and not
    part of `bbox`; theirs is at the corner of the network input, some pixels outside the frame.
    The step's DecodeOptions must not filter. Closes the images, not the step. progress: called with the number of
    images done. Raises ValueError if model and annotations differ in their joints, SourceError if no image was read.
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
    """Raises ValueError if the model's joints are not those of the annotations."""
    if step.spec.num_joints != annotations.joints:
        raise ValueError(
            f"{step.spec.name} finds {step.spec.num_joints} joints ({step.spec.joint_set}), {annotations.path} has "
            f"{annotations.joints}; expected a model and annotations of the same joint set"
        )
