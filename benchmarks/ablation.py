"""The paper's ablation in small: its five rows on one narrow network, equal steps, several seeds.

  python -m benchmarks.ablation --train train.zip --out runs/ablation
  python -m benchmarks.ablation --evaluate runs/ablation --val val.json,val/

Rows differ in HigherHRNet's head alone: each is trained by a `python -m train` with the options of TRAINING and those
after `--`, over the frozen backbone of --start; the merge of its features, the heatmaps and the tags start untrained.
The same command again resumes. Rows that differ in inference alone have the same weights, and are trained once.

Evaluation prints a table of AP, each row with its own inference mode, beside the paper's. "True tags": an oracle
groups, so that heatmaps alone are judged.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean

from core.command_line import FAILED, OK, REFUSED, CommandParser, complain, count, file_path
from core.errors import PoseError, SourceError
from core.signals import stop_of, stop_signals
from core.spec import ModelSpec
from export.checkpoint import load_checkpoint
from export.model import ABLATION, NARROW, build_model
from export.tiny import TINY_MEAN, TINY_STD
from kernels.options import DecodeOptions
from train.__main__ import main as train
from train.arguments import labels_and_folder

PROG = "python -m benchmarks.ablation"
# Cheng et al. 2020, table 6: AP on COCO val2017, HigherHRNet-W32 at 512, without multi-scale test.
PAPER_AP = (64.4, 66.0, 66.3, 66.9, 67.1)
SIDE = 256  # pixels, short side of the validation pictures
THRESHOLD = 0.2  # of a peak; the authors' 0.1 lets ghosts pass after so short a training
SIGMA = ("1.3", "2")  # cells, at 1/4 and 1/2: 5.2 and 4 pixels
TRAINING = (
    *("--model", NARROW, "--freeze", r"backbone\.", "--side", "160", "--short-side", "224", "--about-person", "0.8"),
    *("--batch", "32", "--rate", "4e-3", "--warm-up", "30", "--average-decay", "0.98", "--heatmap-weight", "30"),
    *("--foreground", "5", "--pull-weight", "0.2", "--push-weight", "0.3", "--threads", "1", "--workers", "0"),
    *("--checkpoint-every", "100", "--half"),
)
TRUE = "AP, true tags"
START = Path("models/small.safetensors")
FILE = re.compile(r"row(\d)-seed(\d+)-step(\d+)\.safetensors")

Scores = Mapping[str, float]


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status: 0; 1 if a training failed; 2 for bad arguments or input; 128 + a signal."""
    options = _parser().parse_args(arguments)
    try:
        if options.train:
            return _train(options)
        with stop_signals():
            return _evaluate(options)
    except (ValueError, PoseError) as error:
        return complain(PROG, error, REFUSED)
    except KeyboardInterrupt as error:
        stop = stop_of(error)
        return complain(PROG, stop, stop.status)


def table(scores: Mapping[tuple[int, int], Scores], steps: int) -> str:
    """Markdown. scores: (row, seed) -> AP, AP50 and TRUE, 0..1; rows count from 1.

    The rows of a seed are trained on the same crops. So a row is compared with the one before it seed by seed.
    """
    seeds = sorted({seed for _, seed in scores})
    head = ["", "AP", "each seed", "over the row before", "AP50", "AP, true tags", "each seed", "over the row before"]
    lines = [_line([*head, "paper's AP"]), _line(["---"] + ["---:"] * len(head))]
    for row, (name, paper) in enumerate(zip(ABLATION, PAPER_AP, strict=True), start=1):
        each = {seed: scores[row, seed] for seed in seeds if (row, seed) in scores}
        before = {seed: scores[row - 1, seed] for seed in each if (row - 1, seed) in scores}
        ap50 = f"{100 * mean(one['AP50'] for one in each.values()):.1f}" if each else "–"
        cells = [*_compared(each, before, "AP"), ap50, *_compared(each, before, TRUE)]
        lines.append(_line([name, *cells, f"{paper:.1f}"]))
    listed = f"seeds {', '.join(map(str, seeds))}" if len(seeds) > 1 else "one seed: rows are in no order"
    chance = f"A row that is higher in all {len(seeds)} seeds would be so by chance once in {2 ** len(seeds)}."
    lines += ["", f"{steps} steps each, {listed}.{f' {chance}' if len(seeds) > 1 else ''}"]
    return "\n".join(lines)


def _compared(each: Mapping[int, Scores], before: Mapping[int, Scores], key: str) -> list[str]:
    """Three cells: the mean; each seed's; the mean difference to the row before, and in how many seeds it is higher."""
    if not each:
        return ["–", "–", "–"]
    differences = [100 * (each[seed][key] - before[seed][key]) for seed in before]
    higher = sum(difference > 0 for difference in differences)
    over = f"{mean(differences):+.1f}, {higher} of {len(before)}" if before else "–"
    return [
        f"{100 * mean(one[key] for one in each.values()):.1f}",
        " ".join(f"{100 * one[key]:.1f}" for one in each.values()),
        over,
    ]


def trained_rows() -> dict[int, int]:
    """Row -> the row whose weights it has: itself, or an earlier one that differs in `aggregate` alone."""
    rows: dict[int, int] = {}
    networks: dict[str, int] = {}
    for row, switches in enumerate(ABLATION.values(), start=1):
        rows[row] = networks.setdefault(str(sorted((switches | {"aggregate": True}).items())), row)
    return rows


def switch_arguments(row: int) -> list[str]:
    """The arguments of `python -m train` for a row of the table, from 1 on."""
    switches = list(ABLATION.values())[row - 1]
    arguments = [] if switches.get("concatenate", True) else ["--no-concatenate"]
    arguments += [] if switches.get("aggregate", True) else ["--no-aggregate"]
    for name, argument in (("deconvolutions", "--deconvolutions"), ("residual_blocks", "--residual-blocks")):
        if name in switches:
            arguments += [argument, f"{switches[name]}"]  # type: ignore[literal-required]  # the names above
    return [*arguments, "--sigma", ",".join(SIGMA[: 1 + switches.get("deconvolutions", 1)])]


def _train(options: argparse.Namespace) -> int:
    common = [*TRAINING, "--backbone", f"{options.start}", "--device", options.device, "--steps", f"{options.steps}"]
    common += [argument for one in options.train for argument in ("--data", one)]
    for seed in options.seeds:
        for row in sorted(set(trained_rows().values())):
            name = f"row{row}-seed{seed}"
            out = options.out / f"{name}-step{options.steps}.safetensors"
            if out.exists():
                continue
            print(f"{name}: {list(ABLATION)[row - 1]}", flush=True)
            files = ["--run", f"{options.out / 'runs' / name}", "--out", f"{out}"]
            status = train([*common, *switch_arguments(row), "--seed", f"{seed}", *files, *options.more])
            if status != OK:
                return status
            if not out.exists():  # after --minutes among the options
                return FAILED
    return OK


def _evaluate(options: argparse.Namespace) -> int:
    from benchmarks.true_tags import TrueTags  # needs pycocotools, training does not
    from train.validate import Validation

    if options.val is None:
        raise ValueError("--evaluate needs --val JSON,DIR")
    found = {path: match for path in sorted(options.evaluate.iterdir()) if (match := FILE.fullmatch(path.name))}
    if not found:
        raise SourceError(f"{options.evaluate} has no row*-seed*-step*.safetensors; train first")
    steps = {int(match[3]) for match in found.values()}
    if len(steps) > 1:
        raise SourceError(f"{options.evaluate} has weights of {sorted(steps)} steps; rows compare at equal steps only")
    spec = ModelSpec(
        name=NARROW, joint_set="coco", short_side=options.side, precision="fp32", mean=TINY_MEAN, std=TINY_STD
    )
    labels, folder = options.val
    decode = DecodeOptions(threshold=THRESHOLD)
    validation = Validation(labels, folder, spec, options.val_limit, decode)
    oracle = TrueTags(validation.annotations)
    rows = list(ABLATION.values())
    scores: dict[tuple[int, int], Scores] = {}
    for path, match in found.items():
        seed = int(match[2])
        for row in [row for row, trained in trained_rows().items() if trained == int(match[1])]:
            model = build_model(NARROW, **rows[row - 1]).eval()
            load_checkpoint(model, path)
            own, true = [], []
            for maps in validation.maps(model):
                own += validation.decode(maps)
                true += validation.decode(maps._replace(tags=oracle(maps)))
            scores[row, seed] = {**validation.score(own), TRUE: validation.score(true)["AP"]}
            text = "  ".join(f"{name} {value:.4f}" for name, value in scores[row, seed].items())
            print(f"row {row}, seed {seed}: {text}", flush=True)
    print(f"\n{table(scores, steps.pop())}")
    return OK


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(prog=PROG, description=__doc__)
    task = parser.add_mutually_exclusive_group(required=True)
    task.add_argument("--train", action="append", metavar="PACK", help="as --data of python -m train; repeatable")
    task.add_argument("--evaluate", type=file_path, metavar="DIR", help="the --out of a training")
    add = parser.add_argument
    add("--out", type=file_path, default=Path("runs/ablation"), metavar="DIR", help="(runs/ablation)")
    text = f"weights of small, for the backbone ({START})"
    add("--start", type=file_path, default=START, metavar="FILE", help=text)
    add("--device", default="cpu", help="cpu, cuda, cuda:1 … (cpu)")
    add("--steps", type=count, default=400, help="of each run (400)")
    add("--seeds", type=int, nargs="+", default=[0, 1], help="(0 1)")
    add("--val", type=labels_and_folder, metavar="JSON,DIR", help="validation pictures")
    add("--val-limit", type=int, default=0, metavar="N", help="use N of them, evenly spread (0: all)")
    add("--val-side", dest="side", type=count, default=SIDE, metavar="PIXELS", help=f"their short side ({SIDE})")
    add("more", nargs="*", metavar="-- OPTION …", help="more options of python -m train, for all runs")
    return parser


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(main())
