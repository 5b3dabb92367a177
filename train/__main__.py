"""python -m train: train a network, go on with a run that was stopped, or prepare data for it.

  python -m train --run runs/tiny --data train.json,train/ --drawn 400 --val val.json,val/ --out models/tiny.safetensors
  python -m train --movenet movenet-multipose.json --data train.json,train/ --out runs/start.safetensors
  python -m train --pack train.zip --data train.json,train/
  python -m train --scenes 90 --out runs/scenes

A run lives in its folder: checkpoint.pt, metrics.jsonl, curve.png. The same command goes on where it stopped.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from engine.errors import PoseError
from engine.spec import IMAGENET_MEAN, IMAGENET_STD, JOINTS, ModelSpec

PACKED_SIDE = 384  # short side of packed pictures: enough for crops of 256 at scale 1.5


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 (also when --minutes are over), 2 for bad arguments or input, 130 for Ctrl-C."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if (options.scenes or options.movenet) and not options.out:
        parser.error("--scenes and --movenet need --out")
    if options.contrast and options.model != "tiny":
        parser.error("--contrast is for --model tiny")
    if not options.data and not options.drawn and not options.scenes:
        parser.error("nothing to train on: give --data JSON,DIR or --drawn N")
    if not (options.run or options.scenes or options.pack or options.movenet):
        parser.error("--run FOLDER is needed, or --pack FILE, --movenet FILE or --scenes N")
    try:
        if options.scenes:
            _draw_scenes(options)
        elif options.pack:
            _pack(options)
        elif options.movenet:
            _start_from_movenet(options)
        else:
            _train(options)
    except (ValueError, PoseError) as error:
        print(f"train: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on from the last checkpoint", file=sys.stderr)
        return 130
    return 0


def _draw_scenes(options: argparse.Namespace) -> None:
    from train.scenes import write_scenes

    print(f"{options.out}: {write_scenes(options.out, options.scenes)} pictures and their labels.json")


def _save(state: dict[str, Any], options: argparse.Namespace) -> None:
    import torch
    from safetensors.torch import save_file

    state = {name: value.cpu().contiguous() for name, value in state.items()}
    if options.contrast:
        state["contrast"] = torch.tensor(options.contrast)
    if options.half:
        state = {name: value.half() if value.is_floating_point() else value for name, value in state.items()}
    save_file(state, options.out)


def _pack(options: argparse.Namespace) -> None:
    from train.pictures import pack

    if len(options.data) != 1 or options.data[0][1] is None:
        raise ValueError("--pack takes one --data JSON,DIR")
    labels, folder, _ = options.data[0]
    count = pack(labels, folder, options.pack, options.pack_side)
    print(f"{options.pack}: {count} pictures, {options.pack.stat().st_size / 1e6:.1f} MB")


def _start_from_movenet(options: argparse.Namespace) -> None:
    import torch

    from export.model import build_model
    from export.tiny import TINY_MEAN, TINY_STD, Tiny
    from train.mixture import batches, normalise
    from train.thin import distil, thin
    from train.warm_start import fit_tags, load_movenet

    torch.manual_seed(options.seed)
    if options.threads:
        torch.set_num_threads(options.threads)
    published = load_movenet(options.movenet)
    mixture = _mixture(options)
    if mixture.joints != published.logits.out_channels:
        raise ValueError(f"the pictures label {mixture.joints} joints; MoveNet knows {published.logits.out_channels}")
    model = build_model("tiny", joints=mixture.joints)
    assert isinstance(model, Tiny)
    steps = -(-options.thin_on // options.batch)
    stream = batches(mixture, options.batch, range(steps + options.distil_steps), options.workers)
    images = (normalise(sample["image"], TINY_MEAN, TINY_STD) for sample in stream)
    backbone = thin(published, torch.cat([next(images) for _ in range(steps)]))
    with _progress() as bars:
        task = bars.add_task("distillation", total=options.distil_steps)
        distil(
            backbone,
            published,
            images,
            options.distil_steps,
            on_step=lambda step, loss: bars.update(task, completed=step, description=f"distillation, loss {loss:.3f}"),
        )
    model.backbone.load_state_dict(backbone.state_dict())
    pictures = mixture.sets[0][0]
    fit_tags(model, pictures, options.side, range(0, len(pictures), 3))
    _save(model.state_dict(), options)
    print(f"{options.out}: MoveNet, thinned, with fitted tags")


def _mixture(options: argparse.Namespace) -> Any:
    from train.augment import Augmentation
    from train.mixture import Mixture
    from train.pictures import CocoPictures, DrawnPictures, Pictures

    sets: list[tuple[Pictures, float]] = [(CocoPictures(a, b), weight) for a, b, weight in options.data]
    if options.drawn:
        sets.append((DrawnPictures(options.drawn, seed=options.seed), options.drawn_weight))
    return Mixture(
        sets,
        side=options.side,
        short_side=options.short_side,
        strides=(4, 2, 1)[: 1 + options.deconvolutions],
        augmentation=Augmentation(about_person=options.about_person),
        seed=options.seed,
    )


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), refresh_per_second=2)


def _train(options: argparse.Namespace) -> None:
    import torch

    from train.loop import Run
    from train.plot import plot
    from train.validate import Validation

    torch.manual_seed(options.seed)
    if options.threads:
        torch.set_num_threads(options.threads)
    mixture = _mixture(options)
    model, mean, std = _model(options, mixture.joints)
    validate = None
    if options.val:
        joint_set = next(name for name, joints in JOINTS.items() if joints == mixture.joints)
        spec = ModelSpec(name=options.model, joint_set=joint_set, short_side=options.val_side, mean=mean, std=std)  # type: ignore[arg-type]  # a key of JOINTS is a JointSet
        validate = Validation(options.val[0], options.val[1], spec, options.val_limit)

    with _progress() as bars:
        task = bars.add_task("step", total=options.steps)

        def show(step: int, record: dict[str, Any]) -> None:
            bars.update(task, completed=step)
            if record:
                line = "  ".join(f"{name} {value:.4g}" for name, value in record.items())
                bars.console.print(f"{step:6d}  {line}", soft_wrap=True)

        run = Run(model, mixture, options.run, _run_options(options, mean, std), validate=validate, on_step=show)
        bars.update(task, completed=run.step)
        finished = run.train()
    if run.metrics_path.exists():
        plot(run.metrics_path, options.run / "curve.png")
    if options.out:
        _save(run.average.model.state_dict(), options)
        print(f"{options.out}: the averaged weights after {run.step} steps")
    if not finished:
        print(f"stopped after {run.step} of {options.steps} steps; the same command goes on")


def _model(options: argparse.Namespace, joints: int) -> tuple[Any, tuple[float, ...], tuple[float, ...]]:
    """The network as a new run starts with it, and the mean and std of its input."""
    from export.checkpoint import load_checkpoint
    from export.model import build_model
    from export.tiny import TINY_MEAN, TINY_STD

    if options.model == "tiny":
        model, mean, std = build_model("tiny", joints=joints), TINY_MEAN, TINY_STD
    else:
        switches = {"deconvolutions": options.deconvolutions, "residual_blocks": options.residual_blocks}
        switches |= {"concatenate": not options.no_concatenate, "aggregate": not options.no_aggregate}
        model, mean, std = build_model(options.model, joints=joints, **switches), IMAGENET_MEAN, IMAGENET_STD
    if (options.run / "checkpoint.pt").exists():
        return model, mean, std  # its weights are in the checkpoint
    if options.weights:
        load_checkpoint(model, options.weights)
    return model, mean, std


def _run_options(options: argparse.Namespace, mean: tuple[float, ...], std: tuple[float, ...]) -> Any:
    from dataclasses import fields

    from train.loop import Options

    named = {field.name: getattr(options, field.name) for field in fields(Options) if hasattr(options, field.name)}
    return Options(**named, mean=mean, std=std)  # type: ignore[arg-type]  # three numbers each


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m train", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, metavar="DIR", help="folder of the run")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the averaged weights here (.safetensors)")
    parser.add_argument("--half", action="store_true", help="write them as float16")
    told = "of tiny's outputs, in --out (export/tiny.py)"
    parser.add_argument("--contrast", type=float, nargs=3, metavar=("GAIN", "FLOOR", "TAGS"), help=told)
    _add_data(parser)
    _add_network(parser)
    _add_training(parser)
    return parser


def _add_data(parser: argparse.ArgumentParser) -> None:
    data = parser.add_argument_group("data")
    add = data.add_argument
    told = "COCO keypoints and their pictures, or PACK[,WEIGHT]; repeatable; weight 2: each picture twice an epoch"
    add("--data", action="append", default=[], type=_data, metavar="JSON,DIR[,WEIGHT]", help=told)
    add("--drawn", type=int, default=0, metavar="N", help="add N pictures that the project draws itself")
    add("--drawn-weight", type=float, default=1.0, metavar="X", help="how often each appears in an epoch (1)")
    add("--val", type=_labels, metavar="JSON,DIR", help="measure AP on these")
    add("--val-limit", type=int, default=0, metavar="N", help="only N of them, evenly spread (0: all)")
    add("--val-side", type=int, default=256, metavar="PIXELS", help="their short side (256)")
    add("--pack", type=Path, metavar="FILE", help="write --data into one file and stop")
    add(
        "--pack-side", type=int, default=PACKED_SIDE, metavar="PIXELS", help=f"largest short side in it ({PACKED_SIDE})"
    )
    add("--scenes", type=int, metavar="N", help="draw ten pictures of each of N crowded squares into --out and stop")


def _add_network(parser: argparse.ArgumentParser) -> None:
    network = parser.add_argument_group("network")
    add = network.add_argument
    add("--model", choices=("tiny", "w32", "w48"), default="tiny", help="(tiny)")
    add("--weights", type=Path, metavar="FILE", help="start from these")
    add("--movenet", type=Path, metavar="JSON", help="write tiny, started from MoveNet, to --out (train/warm_start.py)")
    add("--thin-on", type=int, default=500, metavar="N", help="crops by which its channels are chosen (500)")
    add("--distil-steps", type=int, default=1800, metavar="N", help="batches on which it relearns the rest (1800)")
    add("--deconvolutions", type=int, choices=(0, 1, 2), default=1, help="(1)")
    add("--residual-blocks", type=int, default=4, metavar="N", help="per deconvolution, w32 and w48 (4)")
    add("--no-concatenate", action="store_true", help="predictions do not join the features")
    add("--no-aggregate", action="store_true", help="use the finest heatmaps alone")


def _add_training(parser: argparse.ArgumentParser) -> None:
    training = parser.add_argument_group("training")
    add = training.add_argument
    add("--side", type=int, default=256, metavar="PIXELS", help="of the square crops (256)")
    add("--short-side", type=int, metavar="PIXELS", help="of the whole picture at scale 1 (as --side)")
    add("--about-person", type=float, default=0.5, metavar="P", help="share of crops centred on a person (0.5)")
    add("--steps", type=int, default=20_000, help="(20000)")
    add("--batch", type=int, default=16, help="(16)")
    add("--rate", type=float, default=1e-3, help="peak learning rate of AdamW (1e-3)")
    add("--warm-up", type=int, default=200, metavar="STEPS", help="(200)")
    add("--weight-decay", type=float, default=1e-4, help="(1e-4)")
    add("--backbone-rate", type=float, default=1.0, metavar="X", help="learning rate of tiny's backbone, relative (1)")
    add("--frozen-steps", type=int, default=0, metavar="STEPS", help="tiny's backbone does not learn before (0)")
    add("--freeze", metavar="REGEX", help="parameters that never learn, by name")
    add("--average-decay", type=float, default=0.999, help="of the moving average of the weights (0.999)")
    add("--heatmap-weight", type=float, default=1.0, help="(1)")
    add("--foreground", type=float, default=10.0, metavar="X", help="a cell at a joint weighs 1 + X (10)")
    add("--pull-weight", type=float, default=1e-3, help="(1e-3, as the authors)")
    add("--push-weight", type=float, default=1e-3, help="(1e-3, as the authors)")
    add("--seed", type=int, default=0, help="(0)")

    machine = parser.add_argument_group("machine")
    add = machine.add_argument
    add("--device", default="cpu", help="cpu, cuda, cuda:1 … (cpu)")
    add("--fp32", dest="bf16", action="store_false", help="no bfloat16")
    add("--threads", type=int, default=0, help="of PyTorch (0: its own choice)")
    add("--workers", type=int, default=1, help="processes that prepare pictures (1)")
    add("--minutes", type=float, metavar="M", help="stop after M minutes, with a checkpoint")
    add("--log-every", type=int, default=20, metavar="STEPS", help="(20)")
    add("--validate-every", type=int, default=0, metavar="STEPS", help="(0: never)")
    add("--checkpoint-every", type=int, default=200, metavar="STEPS", help="(200)")


def _data(text: str) -> tuple[Path, Path | None, float]:
    """JSON,DIR[,WEIGHT] or PACK[,WEIGHT]."""
    parts = text.split(",")
    weight = 1.0
    if len(parts) > 1 and parts[-1].replace(".", "", 1).isdigit():
        weight = float(parts.pop())
    if len(parts) > 2 or not parts[0]:
        raise argparse.ArgumentTypeError(f"{text!r}; expected JSON,DIR[,WEIGHT] or PACK[,WEIGHT]")
    return Path(parts[0]), Path(parts[1]) if len(parts) == 2 else None, weight


def _labels(text: str) -> tuple[Path, Path]:
    labels, comma, folder = text.partition(",")
    if not comma:
        raise argparse.ArgumentTypeError(f"{text!r}; expected JSON,DIR")
    return Path(labels), Path(folder)


if __name__ == "__main__":
    sys.exit(main())
