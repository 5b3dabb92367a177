"""The arguments of python -m train, in groups."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

from core.command_line import CommandParser, count, file_path
from train.targets import SIGMA, Limits

PROG = "python -m train"
FEATURES_WEIGHT = 0.1  # of the features' squared error, relative to their variance
OVER_MOVENET = ("tiny", "small")
COARSEST = 32  # pixels of a picture per cell of the deepest features
PACKED_SIDE = 384  # short side of packed pictures, enough for crops of 256 at scale 1.5


def parse(description: str | None, arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options. Exits with status 2 and one line if they are wrong or do not fit together."""
    parser = parser_of(description)
    options = parser.parse_args(arguments)
    starts = options.movenet and not options.distilled
    if (options.scenes or starts) and not options.out:
        parser.error("--scenes, and --movenet without --distilled, need --out")
    if options.calibration and options.model not in OVER_MOVENET:
        parser.error("--calibration is for --model tiny and small")
    if options.distilled and not (options.movenet and options.run and options.model in OVER_MOVENET):
        parser.error("--distilled needs --movenet, --run and --model tiny or small")
    if not options.data and not options.distilled and not options.drawn and not options.scenes:
        parser.error("nothing to train on: give --data JSON,DIR or --drawn N")
    if options.write_maps and not options.weights:
        parser.error("--write-maps needs --weights")
    if not (options.run or options.scenes or options.pack or options.movenet or options.write_maps):
        parser.error("--run FOLDER is needed, or --pack FILE, --movenet FILE, --write-maps DIR or --scenes N")
    if options.validate_every and not options.val:
        parser.error("--validate-every needs --val")
    if options.timed and options.minutes is None:
        parser.error("--timed needs --minutes")
    return options


def parser_of(description: str | None) -> CommandParser:
    parser = CommandParser(prog=PROG, description=description)
    parser.add_argument("--run", type=file_path, metavar="DIR", help="folder of the run")
    parser.add_argument("--out", type=file_path, metavar="FILE", help="write the averaged weights here (.safetensors)")
    parser.add_argument("--half", action="store_true", help="write them as float16")
    text = "calibration of the outputs of tiny or small, stored in --out (export/tiny.py)"
    parser.add_argument("--calibration", type=float, nargs=3, metavar=("GAIN", "FLOOR", "TAGS"), help=text)
    text = "write a weighted mean of the run's weights and those of FILE, which have the weight SHARE"
    parser.add_argument("--blend", type=_blend, metavar="FILE,SHARE", help=text)
    _add_data(parser)
    _add_network(parser)
    _add_training(parser)
    return parser


def _side(text: str) -> int:
    """A side of pictures for training: the deepest features have a thirty-second of it."""
    value = int(text) if text.isdecimal() else 0
    if value < COARSEST or value % COARSEST:
        raise argparse.ArgumentTypeError(f"got {text}, expected a multiple of {COARSEST}, such as 256")
    return value


def _pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a regular expression: {error}") from None
    return text


def _add_data(parser: argparse.ArgumentParser) -> None:
    data = parser.add_argument_group("data")
    add = data.add_argument
    text = "COCO keypoints and their pictures, or PACK[,WEIGHT]; repeatable; weight 2: each picture twice per epoch; "
    text += 'pictures without people count if the file says "nobody": true of them'
    add("--data", action="append", default=[], type=_data, metavar="JSON,DIR[,WEIGHT]", help=text)
    text = "as --data, but the targets of the heatmaps at 1/4 are those of --movenet, not of the labels"
    add("--distilled", action="append", default=[], type=_data, metavar="JSON,DIR[,WEIGHT]", help=text)
    text = "weight of the labels in the targets of --distilled, 0 to 1 (0); A,B: from A at the start to B at the end"
    add("--label-share", type=_shares, default=(0.0, 0.0), metavar="X[,Y]", help=text)
    text = "the same where no labelled joint is near (as --label-share)"
    add("--background-share", type=_share, metavar="X", help=text)
    text = f"weight of the loss of the teacher's features ({FEATURES_WEIGHT:g})"
    add("--features-weight", type=float, default=FEATURES_WEIGHT, metavar="X", help=text)
    text = "write the heatmaps of --weights for --data, averaged over scales and mirrored, into this folder and exit"
    add("--write-maps", type=file_path, metavar="DIR", help=text)
    text = "mix these heatmaps into the targets of the sets of --data that have some there (train/ensemble.py)"
    add("--maps", type=file_path, metavar="DIR", help=text)
    add("--maps-share", type=_share, default=0.5, metavar="X", help="their share of the targets, 0 to 1 (0.5)")
    add("--drawn", type=int, default=0, metavar="N", help="add N synthetic pictures")
    add("--drawn-weight", type=float, default=1.0, metavar="X", help="how often each is used per epoch (1)")
    add("--val", type=labels_and_folder, metavar="JSON,DIR", help="validation pictures, to measure AP on at the end")
    add("--val-limit", type=int, default=0, metavar="N", help="use N of them, evenly spread (0: all)")
    add(
        "--val-side",
        type=_side,
        default=256,
        metavar="PIXELS",
        help="their short side, and that of --write-maps (256)",
    )
    add("--pack", type=file_path, metavar="FILE", help="write --data into one file and exit")
    add(
        "--pack-side", type=int, default=PACKED_SIDE, metavar="PIXELS", help=f"largest short side in it ({PACKED_SIDE})"
    )
    add("--scenes", type=int, metavar="N", help="draw ten pictures of each of N synthetic scenes into --out and exit")


def _add_network(parser: argparse.ArgumentParser) -> None:
    network = parser.add_argument_group("network")
    add = network.add_argument
    add("--model", choices=(*OVER_MOVENET, "w32", "w48", "narrow"), default="tiny", help="(tiny)")
    add("--weights", type=file_path, metavar="FILE", help="start from these weights")
    add(
        "--grow",
        action="store_true",
        help="layers that --weights and --blend lack start untrained, and are not blended",
    )
    text = "start the backbone of narrow from that of small, in this file; the head is random"
    add("--backbone", type=file_path, metavar="FILE", help=text)
    add(
        "--movenet",
        type=file_path,
        metavar="JSON",
        help="write tiny or small, initialised from MoveNet, to --out (train/warm_start.py)",
    )
    add("--prune-on", type=int, default=500, metavar="N", help="number of crops to select channels with (500)")
    add("--distil-steps", type=int, default=1800, metavar="N", help="batches of the distillation after pruning (1800)")
    add("--deconvolutions", type=int, choices=(0, 1, 2), default=1, help="(1)")
    add("--residual-blocks", type=int, default=4, metavar="N", help="per deconvolution, not for tiny and small (4)")
    add("--no-concatenate", action="store_true", help="do not concatenate predictions with the features")
    add("--no-aggregate", action="store_true", help="use only the finest heatmaps")


def _add_training(parser: argparse.ArgumentParser) -> None:
    training = parser.add_argument_group("training")
    add = training.add_argument
    add("--side", type=_side, default=256, metavar="PIXELS", help="side of the square crops (256)")
    add("--short-side", type=int, metavar="PIXELS", help="short side of the whole picture at scale 1 (as --side)")
    add("--about-person", type=float, default=0.5, metavar="P", help="share of crops centred on a person (0.5)")
    add("--steps", type=count, default=20_000, help="(20000)")
    add("--batch", type=count, default=16, help="(16)")
    add("--rate", type=float, default=1e-3, help="peak learning rate of AdamW (1e-3)")
    add("--warm-up", type=int, default=200, metavar="STEPS", help="(200)")
    add("--weight-decay", type=float, default=1e-4, help="(1e-4)")
    text = "learning rate of the backbone of tiny and small: X times the rate and the RMS of each tensor (5)"
    add("--backbone-rate", type=float, default=5.0, metavar="X", help=text)
    add("--frozen-steps", type=int, default=0, metavar="STEPS", help="freeze the backbone for these steps (0)")
    add("--freeze", type=_pattern, metavar="REGEX", help="freeze the parameters with these names")
    add("--average-decay", type=float, default=0.999, help="of the moving average of the weights (0.999)")
    add("--heatmap-weight", type=float, default=1.0, help="(1)")
    add("--foreground", type=float, default=10.0, metavar="X", help="weight of a cell at a joint: 1 + X (10)")
    text = "cross-entropy for the heatmaps at 1/4 of tiny and small, which are probabilities (losses.py)"
    add("--focal", action="store_true", help=text)
    text = (
        f"of the Gaussians around joints ({SIGMA:g}); or one for each resolution, the coarsest first; LOW:HIGH instead "
    )
    text += "of a number: in proportion to the person's size, within these limits (train/targets.py)"
    add("--sigma", type=_sigmas, default=(SIGMA,), metavar="CELLS[,CELLS]", help=text)
    text = "size (root of the box's area in the crop) from which a person's Gaussians have the height 1 (0: all have)"
    add("--full-size", type=float, default=0.0, metavar="PIXELS", help=text)
    add("--pull-weight", type=float, default=1e-3, help="(1e-3, as in the authors' code)")
    add("--push-weight", type=float, default=1e-3, help="(1e-3, as in the authors' code)")
    add("--seed", type=int, default=0, help="(0)")

    machine = parser.add_argument_group("machine")
    add = machine.add_argument
    add("--device", default="cpu", help="cpu, cuda, cuda:1 … (cpu)")
    add("--fp32", dest="bf16", action="store_false", help="do not use bfloat16")
    text = "decode all pictures once into the memory of --device and make the crops there (with cuda; otherwise not)"
    add("--in-memory", action=argparse.BooleanOptionalAction, help=text)
    add("--threads", type=int, default=0, help="of PyTorch (0: PyTorch's default)")
    add("--workers", type=int, default=1, help="processes that prepare pictures (1)")
    add("--minutes", type=float, metavar="M", help="write a checkpoint and stop after M minutes")
    text = "let the learning rate fall until the end of --minutes, which include loading the pictures, not over --steps"
    add("--timed", action="store_true", help=text)
    text = "write the averaged weights to RUN/average-SECONDS.safetensors at these intervals (0: never)"
    add("--snapshot-seconds", type=float, default=0.0, metavar="S", help=text)
    add("--log-every", type=count, default=20, metavar="STEPS", help="(20)")
    add(
        "--validate-every", type=int, default=0, metavar="STEPS", help="measure AP also meanwhile (0: at the end alone)"
    )
    add("--checkpoint-every", type=count, default=200, metavar="STEPS", help="(200)")


def _data(text: str) -> tuple[Path, Path | None, float]:
    """JSON,DIR[,WEIGHT] or PACK[,WEIGHT]."""
    parts = text.split(",")
    weight = 1.0
    if len(parts) > 1 and parts[-1].replace(".", "", 1).isdigit():
        weight = float(parts.pop())
    if len(parts) > 2 or not parts[0]:
        raise argparse.ArgumentTypeError(f"{text!r}; expected JSON,DIR[,WEIGHT] or PACK[,WEIGHT]")
    return Path(parts[0]), Path(parts[1]) if len(parts) == 2 else None, weight


def _blend(text: str) -> tuple[Path, float]:
    name, _, share = text.rpartition(",")
    try:
        value = float(share)
    except ValueError:
        value = -1.0
    if not name or not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r}; expected FILE,SHARE with a share from 0 to 1")
    return Path(name), value


def _share(text: str) -> float:
    first, last = _shares(text)
    if first != last:
        raise argparse.ArgumentTypeError(f"{text!r}; expected one number from 0 to 1")
    return first


def _shares(text: str) -> tuple[float, float]:
    try:
        first, _, last = text.partition(",")
        values = float(first), float(last or first)
    except ValueError:
        values = -1.0, -1.0
    if not all(0 <= value <= 1 for value in values):
        raise argparse.ArgumentTypeError(f"{text!r}; expected a number from 0 to 1, or two: X,Y")
    return values


def _sigmas(text: str) -> tuple[float | Limits, ...]:
    try:
        parts = [tuple(float(value) for value in part.split(":")) for part in text.split(",")]
    except ValueError:
        parts = [()]
    if not all(len(part) in {1, 2} and 0 < part[0] <= part[-1] for part in parts):
        words = "expected positive numbers of cells: X or X,Y; or limits LOW:HIGH instead of a number"
        raise argparse.ArgumentTypeError(f"{text!r}; {words}")
    return tuple((part[0], part[1]) if len(part) == 2 else part[0] for part in parts)


def labels_and_folder(text: str) -> tuple[Path, Path]:
    """JSON,DIR."""
    labels, comma, folder = text.partition(",")
    if not comma:
        raise argparse.ArgumentTypeError(f"{text!r}; expected JSON,DIR")
    return Path(labels), Path(folder)
