"""COCO keypoint AP through the engine that runs: `python evaluate.py --images val2017 --annotations FILE`."""

from __future__ import annotations

from core.signals import end_at_once, stop_of, stop_signals

if __name__ == "__main__":
    end_at_once("evaluate.py")  # before the long imports

import argparse
import json
import re
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from core.command_line import FAILED, OK, REFUSED, CommandParser, add_gpu_option, complain, count, file_path, input_side
from core.errors import PoseError, SinkError
from evaluation import (
    AnnotatedImages,
    Annotations,
    Evaluation,
    ScalesStep,
    check_joints,
    check_scales,
    compare_results,
    evaluate_step,
    find_images,
    load_annotations,
    load_results,
    score_results,
)
from export.zoo import DEFAULT_MODEL, MODELS
from kernels.options import DecodeOptions
from pipeline.models import DEVICES, ENGINES, StepOptions, open_step
from pipeline.step import FrameStep, HostStep

PROG = "evaluate.py"
MAX_LISTED = 5  # missing images listed on stderr; the others are counted

EXAMPLES = f"""
examples:
  python evaluate.py --images val2017 --annotations person_keypoints_val2017.json --model tiny w32-512 --flip
  python evaluate.py --images val2017 --annotations person_keypoints_val2017.json --flip --scales 0.5 1 2
  python evaluate.py --images samples/crowd.mp4 --annotations samples/crowd.json
  python evaluate.py --compare fp32.json fp16.json --annotations person_keypoints_val2017.json

People are scored as in the authors' evaluation: every detected person counts, also those with low scores, ranked by the
mean over all joints before refine. There is no filter and no suppression of duplicates. EXIF orientation is ignored.
models: {", ".join(MODELS)}; or an .onnx file, a checkpoint, or a .plan. Load only plans that you built or trust.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status. Every failure is one line on stderr."""
    running = False
    try:
        arguments = parse(argv)
        with stop_signals(), ExitStack() as stack:
            if arguments.compare:
                compare(arguments)
                return OK
            annotations = load_annotations(arguments.annotations)
            find_images(arguments.images, annotations.first(arguments.limit))
            names = names_of(arguments.model)
            files = save_paths(arguments.save_json, names)
            steps = [
                stack.enter_context(OpenModel(*model, arguments))
                for model in zip(arguments.model, names, files, strict=True)
            ]
            for opened in steps:
                check_joints(opened.step, annotations)
            running = True
            evaluations = [evaluate(opened, arguments, annotations) for opened in steps]
            report(steps, evaluations, arguments, annotations)
    except KeyboardInterrupt as error:
        stop = stop_of(error)
        return complain(PROG, f"{stop}; nothing was scored", stop.status)
    except (PoseError, ValueError, OSError) as error:
        return complain(PROG, str(error), FAILED if running else REFUSED)
    return OK


class OpenModel:
    """A model ready to run. All are opened before the first image, so that a wrong name is reported at once.

    name: in the table. save: file of its results, or None.
    """

    def __init__(self, model: str, name: str, save: Path | None, arguments: argparse.Namespace) -> None:
        options = StepOptions(
            engine=arguments.engine,
            device=arguments.device,
            gpu=arguments.gpu,
            size=arguments.size,
            flip=arguments.flip,
            decode=DecodeOptions(project=arguments.decode == "full"),
        )
        self.name = name
        self.save = save
        self.step: FrameStep = open_step(model, options)
        if arguments.scales not in ([], [1.0]):
            if not isinstance(self.step, HostStep):
                self.step.close()
                raise ValueError(
                    f"--scales needs an engine of the host, got {self.step.engine}; add --engine onnxruntime"
                )
            self.step = ScalesStep(self.step, arguments.scales)

    def __enter__(self) -> OpenModel:
        return self

    def __exit__(self, *exc: object) -> None:
        self.step.close()


def evaluate(opened: OpenModel, arguments: argparse.Namespace, annotations: Annotations) -> Evaluation:
    images = AnnotatedImages(arguments.images, annotations.first(arguments.limit))
    with progress_bar() as progress:
        task = progress.add_task(opened.name, total=len(images.images))
        evaluation = evaluate_step(
            opened.step, images, annotations, progress=lambda seen: progress.update(task, completed=seen)
        )
    if opened.save is not None:
        try:
            opened.save.write_text(json.dumps(evaluation.results, separators=(",", ":")) + "\n", encoding="utf-8")
        except OSError as error:
            raise SinkError(f"{opened.save} cannot be written: {error.strerror}") from error
    return evaluation


def report(
    steps: Sequence[OpenModel],
    evaluations: Sequence[Evaluation],
    arguments: argparse.Namespace,
    annotations: Annotations,
) -> None:
    rows = [["model", "engine", *evaluations[0].scores, "people"]]
    for opened, evaluation in zip(steps, evaluations, strict=True):
        scores = [f"{value:.3f}" if value >= 0 else "-" for value in evaluation.scores.values()]
        rows.append([opened.name, opened.step.engine, *scores, str(len(evaluation.results))])
    print_table(rows, names=2)
    seen, asked = len(evaluations[0].image_ids), len(annotations.first(arguments.limit))
    scales = " ".join(f"{scale:g}" for scale in arguments.scales) or "1"
    print(
        f"{seen} of {asked} images of {annotations.path}; flip {'on' if arguments.flip else 'off'}, scales {scales}, "
        f"decoded at {arguments.decode} resolution, no output filter"
    )
    for opened in steps:
        if opened.save is not None:
            print(f"results of {opened.name}: {opened.save}")
    for kind, names in (("missing", evaluations[0].missing), ("unreadable", evaluations[0].unreadable)):
        if names:
            rest = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
            print(f"{len(names)} images {kind}, not scored: {', '.join(names[:MAX_LISTED])}{rest}", file=sys.stderr)


def compare(arguments: argparse.Namespace) -> None:
    """Print the distance between the people of both files and, with annotations, AP of both and its difference."""
    annotations = load_annotations(arguments.annotations) if arguments.annotations is not None else None
    first, second = (load_results(path, annotations) for path in arguments.compare)
    if annotations is not None:
        ids = [image_id for image_id, _ in annotations.first(arguments.limit)]
        first, second = ([one for one in results if one["image_id"] in set(ids)] for results in (first, second))
        a, b = (score_results(annotations, results, ids) for results in (first, second))
        rows = [["", *a]]
        for path, scores in zip(arguments.compare, (a, b), strict=True):
            rows.append([str(path), *(f"{value:.4f}" if value >= 0 else "-" for value in scores.values())])
        rows.append(["difference", *(f"{b[name] - a[name]:+.4f}" if a[name] >= 0 else "-" for name in a)])
        print_table(rows, names=1)
    found = compare_results(first, second)
    print(
        f"{found.people[0]} and {found.people[1]} people, {found.matched} matched; their keypoints are "
        f"{found.mean:.3f} px apart on average (median {found.percentile(50):.3f}, p95 {found.percentile(95):.3f}, "
        f"largest {found.percentile(100):.3f})"
    )


def print_table(rows: Sequence[Sequence[str]], *, names: int) -> None:
    """Print columns as wide as their widest cell, the first `names` left-aligned; never wrapped, so programs can read
    them."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [
            cell.ljust(w) if i < names else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())


def names_of(models: Sequence[str]) -> list[str]:
    """A different name for each model: a bundled model's own; of a file the shortest end of its path that suffices."""
    paths = [(model,) if model in MODELS else Path(model).absolute().parts for model in models]

    def end(path: tuple[str, ...]) -> str:
        others = [other for other in paths if other != path]
        lengths = (n for n in range(1, len(path)) if all(path[-n:] != other[-n:] for other in others))
        return str(Path(*path[-next(lengths, len(path)) :]))

    return [end(path) for path in paths]


def save_paths(path: Path | None, names: Sequence[str]) -> list[Path | None]:
    """FILE; for several models FILE-NAME.json, where NAME keeps its folder and suffix if others differ in these alone.

    Raises SinkError.
    """
    if path is None:
        return [None] * len(names)
    if not path.parent.is_dir() or path.is_dir():
        raise SinkError(f"--save-json {path} cannot be written; expected a file in an existing folder")
    if len(names) == 1:
        return [path]
    stems = [_in_one_word(str(Path(name).with_suffix(""))) for name in names]
    if not _are_different(stems):
        stems = [_in_one_word(name) for name in names]
    if not _are_different(stems):  # a/b.onnx and a-b.onnx
        stems = [f"{number}-{stem}" for number, stem in enumerate(stems, start=1)]
    return [path.with_name(f"{path.stem}-{stem}{path.suffix or '.json'}") for stem in stems]


def _in_one_word(name: str) -> str:
    return re.sub(r"[/\\:]+", "-", name).strip("-")


def _are_different(names: Sequence[str]) -> bool:
    return len({name.casefold() for name in names}) == len(names)  # some file systems do not distinguish case


def progress_bar() -> Progress:
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f} images"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
        transient=True,
    )


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Raises ValueError for arguments that exclude each other."""
    parser = CommandParser(
        prog=PROG,
        description="COCO keypoint AP and AR of models through any engine, with the pipeline's preprocess and decode.",
        epilog=EXAMPLES,
    )
    parser.add_argument("--images", type=file_path, metavar="DIR|VIDEO", help="a video's image ids: its frame indices")
    parser.add_argument("--annotations", type=file_path, metavar="FILE", help="COCO or CrowdPose keypoint annotations")
    parser.add_argument(
        "--model", nargs="+", default=[DEFAULT_MODEL], metavar="NAME|FILE", help=f"default: {DEFAULT_MODEL}, bundled"
    )
    parser.add_argument("--engine", default="auto", choices=ENGINES, help="default: auto")
    parser.add_argument("--device", choices=DEVICES, help="what OpenVINO runs on (default: CPU)")
    add_gpu_option(parser)
    parser.add_argument("--size", type=input_side, metavar="N", help="short side of the input (default: the model's)")
    parser.add_argument("--flip", action="store_true", help="average with the mirrored image, as for published AP")
    parser.add_argument("--scales", type=float, nargs="+", default=[], metavar="S", help="multi-scale, such as 0.5 1 2")
    parser.add_argument(
        "--decode", default="full", choices=("full", "half"), help="resolution (default: full, the input's)"
    )
    parser.add_argument("--limit", type=count, metavar="N", help="only the first N images")
    parser.add_argument("--save-json", type=file_path, metavar="FILE", help="write the people found as COCO results")
    parser.add_argument(
        "--compare", type=file_path, nargs=2, metavar=("A", "B"), help="compare two such files; needs no model"
    )
    arguments = parser.parse_args(argv)
    if not arguments.compare and (arguments.images is None or arguments.annotations is None):
        raise ValueError("expected --images and --annotations, or --compare A.json B.json (see --help)")
    if len({model if model in MODELS else Path(model).resolve() for model in arguments.model}) < len(arguments.model):
        raise ValueError("--model lists a model twice; expected each once")
    if arguments.scales:
        check_scales(arguments.scales)
    return arguments


if __name__ == "__main__":
    sys.exit(main())
