"""python -m export: a named model or a checkpoint to ONNX; or the list of models."""

from __future__ import annotations

from core.signals import end_at_once, stop_of, stop_signals

if __name__ == "__main__":
    end_at_once("python -m export")  # before the long imports

import argparse
import sys

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from core.command_line import FAILED, OK, REFUSED, CommandParser, complain, file_path, input_side
from core.errors import DownloadError, ModelError
from core.joints import JOINT_SETS
from core.progress import progress_bar
from core.spec import SIDE_MULTIPLE
from export import zoo

PROG = "python -m export"


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0, 2 for bad arguments or input, 1 for a failed download or disk, 128 + the signal that ends it."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        with stop_signals():
            if options.list:
                _list_models()
                return OK
            if options.model is None or options.out is None:
                parser.error("a model and --out are needed, or --list")
            _export(options)
    except (ValueError, ModelError) as error:
        return complain(PROG, error, REFUSED)
    except DownloadError as error:
        return complain(PROG, error, FAILED)
    except ImportError as error:
        return complain(PROG, f'{error}; exporting needs more packages: pip install ".[export]"', FAILED)
    except KeyboardInterrupt as error:
        stop = stop_of(error)
        return complain(PROG, f"{stop}; nothing was written", stop.status)
    return OK


def _export(options: argparse.Namespace) -> None:
    from export.to_onnx import export_checkpoint

    with progress_bar() as progress:
        path = export_checkpoint(
            options.model,
            options.out,
            fp16=not options.fp32,
            size=options.size,
            fixed_hw=options.fixed,
            check_image=options.check_image,
            progress=progress,
        )
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB, checked against PyTorch")


def _list_models() -> None:
    from export.complexity import measure
    from export.model import ABLATION

    named = Table("name", "input", "joints", "AP", "parameters", "multiply-adds", title="Named models", box=SIMPLE)
    for entry in zoo.MODELS.values():
        side, joints = entry.short_side, len(JOINT_SETS[entry.joint_set])
        parameters, multiply_adds = measure(entry.architecture, (side, side), joints=joints)
        ap = "" if entry.published_ap is None else f"{entry.published_ap}"
        named.add_row(entry.name, f"{side}x{side}", f"{joints}", ap, f"{parameters:,}", f"{multiply_adds / 1e9:.2f} G")
    ablation = Table("", "parameters", "multiply-adds", title="The paper's ablation, W32 at 512x512", box=SIMPLE)
    for row, switches in ABLATION.items():
        parameters, multiply_adds = measure("w32", (512, 512), **switches)
        ablation.add_row(row, f"{parameters:,}", f"{multiply_adds / 1e9:.2f} G")
    console = Console()
    console.print(named, ablation)
    console.print("AP: published with the weights, with flip test. One multiply-add is two floating-point operations.")
    licences = dict.fromkeys(f"{entry.licence}" for entry in zoo.MODELS.values() if entry.url)
    console.print(f"Downloaded weights: {', '.join(licences)}. tiny, small: models/README.md.")


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(prog=PROG, description=__doc__)
    parser.add_argument("model", nargs="?", metavar="NAME|CHECKPOINT", help=f"{', '.join(zoo.MODELS)}, or a file")
    parser.add_argument("--out", type=file_path, metavar="FILE", help="the ONNX file to write")
    parser.add_argument("--list", action="store_true", help="show the named models and the ablation's variants")
    parser.add_argument("--fp32", action="store_true", help="keep 32-bit floats, as onnxruntime on a CPU prefers")
    parser.add_argument("--size", type=input_side, metavar="N", help="short side to run at, a multiple of 64")
    parser.add_argument("--fixed", type=_height_width, metavar="HxW", help="fix the input to one image of this size")
    parser.add_argument("--check-image", type=file_path, metavar="FILE", help="picture to check the export with")
    return parser


def _height_width(text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    if not (height.isdigit() and width.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r}; expected HxW, such as 512x704, multiples of {SIDE_MULTIPLE}")
    return int(height), int(width)


if __name__ == "__main__":
    sys.exit(main())
