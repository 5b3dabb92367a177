"""The paper's ablation in small: its five rows, one narrow network at 128 pixels, equal steps, several seeds.

  python -m benchmarks.ablation --train train.zip --out runs/ablation --device cuda --pretrain 1 --minutes 2.4
  python -m benchmarks.ablation --evaluate runs/ablation --val val.json,val/

All rows and seeds are trained side by side, each by a `python -m train` with the options of TRAINING and those after
`--`. After --minutes all end. The weights of the last number of steps that all runs have reached are kept, so that the
rows are equal in steps. Evaluation prints a table of AP, each row with its own inference mode, beside the paper's.

With --pretrain M, the backbone alone is first trained for M minutes under the first row's head, and all runs start from
it, each with a random head, as the paper's start from a backbone of ImageNet. --start FILE takes it from a file.
Without either, all weights are random.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean

from benchmarks.ablation_runs import run_all
from core.command_line import FAILED, OK, REFUSED, CommandParser, complain, count, file_path
from core.errors import PoseError, SourceError
from core.signals import stop_of, stop_signals
from core.spec import ModelSpec
from export.checkpoint import load_checkpoint
from export.model import ABLATION, NARROW, build_model

PROG = "python -m benchmarks.ablation"
# Cheng et al. 2020, table 6: AP on COCO val2017, HigherHRNet-W32 at 512, without multi-scale test.
PAPER_AP = (64.4, 66.0, 66.3, 66.9, 67.1)
SIDE = 128  # pixels, of crops and of the validation pictures' short side
TRAINING = (
    *("--model", NARROW, "--side", f"{SIDE}", "--about-person", "0.8", "--sigma", "1.3", "--batch", "128"),
    *("--rate", "2e-3", "--warm-up", "50", "--average-decay", "0.99", "--heatmap-weight", "30", "--foreground", "5"),
    *("--pull-weight", "0.1", "--push-weight", "0.2", "--fp32", "--no-search", "--in-memory", "--threads", "1"),
    *("--log-every", "20", "--half"),
)
PRETRAINING = (
    *("--deconvolutions", "0", "--batch", "256", "--rate", "4e-3", "--seed", "99"),
    *("--timed", "--checkpoint-every", "1000000"),
)
FILE = re.compile(r"row(\d)-seed(\d+)-step(\d+)\.safetensors")

Scores = Mapping[str, float]


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status: 0; 1 if a run failed or no weights are there; 2 for bad arguments or input."""
    options = _parser().parse_args(arguments)
    try:
        with stop_signals():
            return _evaluate(options) if options.evaluate else _train(options)
    except (ValueError, PoseError) as error:
        return complain(PROG, error, REFUSED)
    except KeyboardInterrupt as error:
        stop = stop_of(error)
        return complain(PROG, stop, stop.status)


def table(scores: Mapping[tuple[int, int], Scores], steps: int) -> str:
    """Markdown. scores: (row, seed) -> AP, AP50 and AR, 0..1; rows count from 1."""
    seeds = sorted({seed for _, seed in scores})
    head = ["", "AP", *(f"seed {seed}" for seed in seeds), "AP50", "AR", "paper's AP"]
    lines = [_line(head), _line(["---"] + ["---:"] * (len(head) - 1))]
    spreads = []
    for row, (name, paper) in enumerate(zip(ABLATION, PAPER_AP, strict=True), start=1):
        each = {seed: scores[row, seed] for seed in seeds if (row, seed) in scores}
        if not each:
            lines.append(_line([name, *["–"] * (len(head) - 2), f"{paper:.1f}"]))
            continue
        ap = [one["AP"] for one in each.values()]
        spreads.append(max(ap) - min(ap))
        cells = [f"{100 * mean(ap):.1f}"]
        cells += [f"{100 * each[seed]['AP']:.1f}" if seed in each else "–" for seed in seeds]
        cells += [f"{100 * mean(one[key] for one in each.values()):.1f}" for key in ("AP50", "AR")]
        lines.append(_line([name, *cells, f"{paper:.1f}"]))
    order = "One seed: rows are in no order."
    if len(seeds) > 1:
        order = f"The seeds of a row differ by up to {100 * max(spreads):.1f}: rows closer than that are in no order."
    lines += ["", f"{steps} steps each. {order}"]
    return "\n".join(lines)


def switch_arguments(row: int) -> list[str]:
    """The arguments of `python -m train` for a row of the table, from 1 on."""
    switches = list(ABLATION.values())[row - 1]
    arguments = [] if switches.get("concatenate", True) else ["--no-concatenate"]
    arguments += [] if switches.get("aggregate", True) else ["--no-aggregate"]
    for name, argument in (("deconvolutions", "--deconvolutions"), ("residual_blocks", "--residual-blocks")):
        if name in switches:
            arguments += [argument, f"{switches[name]}"]  # type: ignore[literal-required]  # the names above
    return arguments


def _train(options: argparse.Namespace) -> int:
    if options.steps % options.snapshot_steps:
        raise ValueError(
            f"--steps is {options.steps}; expected a multiple of --snapshot-steps {options.snapshot_steps}"
        )
    data = [argument for one in options.train for argument in ("--data", one)]
    common = [*TRAINING, *data, "--device", options.device]
    ends = time.monotonic() + (60 * options.minutes if options.minutes else float("inf"))
    start = options.start
    if options.pretrain:
        start = options.out / "start.safetensors"
        start.unlink(missing_ok=True)
        arguments = [*common, *PRETRAINING, *options.more, "--minutes", f"{options.pretrain}", "--out", f"{start}"]
        first = run_all({"start": arguments}, options.out, parallel=1, limit_s=ends - time.monotonic(), tell=print)
        if first.failed or not start.exists():
            raise SourceError(f"the backbone was not trained: {first.failed.get('start', 'not in time')}")
    common += ["--steps", f"{options.steps}"]
    if start:
        common += ["--backbone", f"{start}"]
    common += ["--snapshot-steps", f"{options.snapshot_steps}", "--checkpoint-every", f"{options.snapshot_steps}"]
    runs = {
        f"row{row}-seed{seed}": [*common, *switch_arguments(row), "--seed", f"{seed}", *options.more]
        for seed in options.seeds
        for row in range(1, len(PAPER_AP) + 1)
    }
    limit_s = ends - time.monotonic()
    result = run_all(runs, options.out, parallel=options.parallel or len(runs), limit_s=limit_s, tell=print)
    for name, reason in result.failed.items():
        print(f"{name} failed: {reason}")
    print(f"{result.steps} steps of {len(result.kept)} of {len(runs)} runs in {result.seconds:.0f} s: {options.out}")
    return OK if len(result.kept) == len(runs) else FAILED


def _evaluate(options: argparse.Namespace) -> int:
    from train.validate import Validation  # needs pycocotools, training does not

    if options.val is None:
        raise ValueError("--evaluate needs --val JSON,DIR")
    found = {path: match for path in sorted(options.evaluate.iterdir()) if (match := FILE.fullmatch(path.name))}
    if not found:
        raise SourceError(f"{options.evaluate} has no row*-seed*-step*.safetensors; train first")
    steps = {int(match[3]) for match in found.values()}
    if len(steps) > 1:
        raise SourceError(f"{options.evaluate} has weights of {sorted(steps)} steps; rows compare at equal steps only")
    spec = ModelSpec(name=NARROW, joint_set="coco", short_side=options.side, precision="fp32")
    labels, folder = options.val
    validation = Validation(labels, folder, spec, options.val_limit)
    rows = list(ABLATION.values())
    scores: dict[tuple[int, int], Scores] = defaultdict(dict)
    for path, match in found.items():
        row, seed = int(match[1]), int(match[2])
        model = build_model(NARROW, **rows[row - 1])
        load_checkpoint(model, path)
        scores[row, seed] = validation(model.eval())
        print(f"{path.name}: " + "  ".join(f"{k} {v:.4f}" for k, v in scores[row, seed].items()), flush=True)
    print(f"\n{table(scores, steps.pop())}")
    return OK


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(prog=PROG, description=__doc__)
    task = parser.add_mutually_exclusive_group(required=True)
    task.add_argument("--train", action="append", metavar="PACK", help="as --data of python -m train; repeatable")
    task.add_argument("--evaluate", type=file_path, metavar="DIR", help="the --out of a training")
    add = parser.add_argument
    add("--out", type=file_path, default=Path("runs/ablation"), metavar="DIR", help="(runs/ablation)")
    add("--device", default="cpu", help="cpu, cuda, cuda:1 … (cpu)")
    add("--steps", type=count, default=800, help="of each run (800)")
    add("--snapshot-steps", type=count, default=100, metavar="N", help="keep weights every N steps (100)")
    add("--minutes", type=float, metavar="M", help="end all runs after M minutes, --pretrain included")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--pretrain", type=float, metavar="M", help="train the backbone first for M minutes")
    source.add_argument("--start", type=file_path, metavar="FILE", help="weights whose backbone all runs start from")
    add("--seeds", type=int, nargs="+", default=[0, 1], help="(0 1)")
    add("--parallel", type=count, metavar="N", help="runs at a time (all)")
    add("--val", type=_pair, metavar="JSON,DIR", help="validation pictures")
    add("--val-limit", type=int, default=0, metavar="N", help="use N of them, evenly spread (0: all)")
    add("--val-side", dest="side", type=count, default=SIDE, metavar="PIXELS", help=f"their short side ({SIDE})")
    add("more", nargs="*", metavar="-- OPTION …", help="more options of python -m train, for all runs")
    return parser


def _pair(text: str) -> tuple[Path, Path]:
    labels, comma, folder = text.partition(",")
    if not comma:
        raise argparse.ArgumentTypeError(f"{text!r}; expected JSON,DIR")
    return Path(labels), Path(folder)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(main())
