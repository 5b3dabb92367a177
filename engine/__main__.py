"""python -m engine: an ONNX file of python -m export to a TensorRT plan.

A plan is code: open only plans from a folder you trust.
"""

from __future__ import annotations

from core.signals import end_at_once, stop_of, stop_signals

if __name__ == "__main__":
    end_at_once("python -m engine")  # before the long imports

import argparse
import sys

from core.command_line import FAILED, OK, REFUSED, CommandParser, complain, file_path, parsed_by
from core.errors import EngineError, ModelError
from core.progress import progress_bar
from engine.onnx_file import read_spec
from engine.shapes import Shape, ShapeRange, parse_shape
from engine.tensorrt.flavor import MODULES
from engine.tensorrt.plan_cache import build_plan, usual_range
from engine.tensorrt.sidecar import read_sidecar

PROG = "python -m engine"


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0, 2 for bad arguments or input, 1 for a build that failed, 128 + the signal that ends it."""
    options = _parser().parse_args(arguments)
    try:
        with stop_signals():
            _build(options)
    except (ValueError, ModelError) as error:
        return complain(PROG, error, REFUSED)
    except EngineError as error:
        return complain(PROG, error, FAILED)
    except KeyboardInterrupt as error:
        stop = stop_of(error)
        return complain(PROG, f"{stop}; nothing was written", stop.status)
    return OK


def _build(options: argparse.Namespace) -> None:
    shapes: ShapeRange | Shape | None = options.shape
    if options.dynamic is not None:
        shapes = options.dynamic or usual_range(read_spec(options.onnx))
    with progress_bar() as progress:
        path = build_plan(options.onnx, options.out, flavor=options.flavor, shapes=shapes, progress=progress)
    built = read_sidecar(path)
    print(
        f"{path}: {path.stat().st_size / 1e6:.1f} MB, {built.spec.precision}, {built.shapes}, "
        f"{built.flavor} {built.version}, {built.gpu}"
    )


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(prog=PROG, description=__doc__)
    parser.add_argument(
        "onnx", type=file_path, metavar="model.onnx", help="made by python -m export, which decides the precision"
    )
    parser.add_argument(
        "--out", type=file_path, required=True, metavar="model.plan", help="its sidecar is put beside it"
    )
    parser.add_argument("--flavor", choices=list(MODULES), help="default: tensorrt where it is installed, with a GPU")
    shapes = parser.add_mutually_exclusive_group()
    shapes.add_argument(
        "--shape", type=parsed_by(parse_shape), metavar="NxHxW", help="the one input the plan takes (default: 4:3)"
    )
    shapes.add_argument(
        "--dynamic",
        type=parsed_by(ShapeRange.parse),
        nargs="?",
        const=(),
        metavar="MIN:BEST:MAX",
        help="a range of inputs, such as 1x256x256:1x512x704:4x1024x1024 (the default at a short side of 512)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
