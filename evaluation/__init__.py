"""COCO keypoint AP of a model, measured with the engine that runs it: annotations, images, scores, comparisons."""

from evaluation.annotations import Annotations, load_annotations
from evaluation.compare import Comparison, compare_results
from evaluation.images import AnnotatedImages, find_images
from evaluation.run import Evaluation, check_joints, evaluate_step
from evaluation.scales import ScalesStep, check_scales
from evaluation.score import load_results, score_results

__all__ = [
    "AnnotatedImages",
    "Annotations",
    "Comparison",
    "Evaluation",
    "ScalesStep",
    "check_joints",
    "check_scales",
    "compare_results",
    "evaluate_step",
    "find_images",
    "load_annotations",
    "load_results",
    "score_results",
]
