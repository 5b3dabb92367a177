"""python -m train: train a network, resume a stopped run, or prepare data.

  python -m train --run runs/tiny --data train.json,train/ --drawn 400 --val val.json,val/ --out models/tiny.safetensors
  python -m train --movenet movenet-multipose.json --data train.json,train/ --out runs/start.safetensors
  python -m train --run runs/tiny --movenet movenet-multipose.json --distilled train.json,train/ --drawn 400
  python -m train --pack train.zip --data train.json,train/
  python -m train --scenes 90 --out runs/scenes

A run's folder holds checkpoint.pt, metrics.jsonl and curve.png. The same command resumes a stopped run.
"""

from __future__ import annotations

from core.signals import end_at_once, stop_of, stop_signals

if __name__ == "__main__":
    end_at_once("python -m train")  # before the long imports

import argparse
import copy
import sys
import time
from typing import TYPE_CHECKING

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from core.command_line import OK, REFUSED, complain
from core.errors import PoseError
from core.joints import joint_set_of
from core.progress import progress_console
from core.spec import IMAGENET_MEAN, IMAGENET_STD, Channels, ModelSpec
from train.arguments import OVER_MOVENET, parser_of

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from export.head import HigherHead
    from train.device_mixture import DeviceMixture
    from train.loop import Record
    from train.mixture import Mixture
    from train.options import Options
    from train.teacher import Teacher


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status: 0 (also after --minutes), 2 for bad arguments or input, 128 + a signal."""
    started = time.monotonic()
    parser = parser_of(__doc__)
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
    if not (options.run or options.scenes or options.pack or options.movenet):
        parser.error("--run FOLDER is needed, or --pack FILE, --movenet FILE or --scenes N")
    if options.timed and options.minutes is None:
        parser.error("--timed needs --minutes")
    try:
        with stop_signals():
            if options.scenes:
                _draw_scenes(options)
            elif options.pack:
                _pack(options)
            elif starts:
                _start_from_movenet(options)
            else:
                _train(options, started)
    except (ValueError, PoseError) as error:
        return complain(parser.prog, error, REFUSED)
    except KeyboardInterrupt as error:
        stop = stop_of(error)
        return complain(parser.prog, f"{stop}; run the same command to resume from the last checkpoint", stop.status)
    return OK


def _draw_scenes(options: argparse.Namespace) -> None:
    from train.scenes import write_scenes

    print(f"{options.out}: {write_scenes(options.out, options.scenes)} pictures and their labels.json")


def _save(state: dict[str, Tensor], options: argparse.Namespace, out: Path) -> None:
    import torch
    from safetensors.torch import save_file

    state = {name: value.cpu().contiguous() for name, value in state.items()}
    if options.calibration:
        state["contrast"] = torch.tensor(options.calibration)
    if options.half:
        state = {name: value.half() if value.is_floating_point() else value for name, value in state.items()}
    partial = out.with_name(f"{out.name}.tmp")
    save_file(state, partial)
    partial.replace(out)  # whole or not at all, if the process is stopped meanwhile


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
    from export.movenet import NEARLY_WHOLE_TOP, PRUNED, PRUNED_TOP, SLIGHTLY
    from export.small import Small
    from export.tiny import TINY_MEAN, TINY_STD, Tiny
    from train import tag_fit
    from train.mixture import batches, normalise
    from train.prune import distil, prune
    from train.warm_start import fit_tags, load_movenet

    torch.manual_seed(options.seed)
    if options.threads:
        torch.set_num_threads(options.threads)
    published = load_movenet(options.movenet)
    mixture = _mixture(options)
    if mixture.joints != published.logits.out_channels:
        raise ValueError(f"the pictures label {mixture.joints} joints; MoveNet knows {published.logits.out_channels}")
    model = build_model(options.model, joints=mixture.joints)
    assert isinstance(model, Tiny | Small)
    widths, top = (PRUNED, PRUNED_TOP) if isinstance(model, Tiny) else (SLIGHTLY, NEARLY_WHOLE_TOP)
    steps = -(-options.prune_on // options.batch)
    stream = batches(mixture, options.batch, range(steps + options.distil_steps), options.workers)
    images = (normalise(sample["image"], TINY_MEAN, TINY_STD) for sample in stream)
    backbone = prune(published, torch.cat([next(images) for _ in range(steps)]), widths, top)
    with _progress() as bars:
        task = bars.add_task("distillation", total=options.distil_steps)
        distil(
            backbone,
            published,
            images,
            options.distil_steps,
            first=min(widths),
            on_step=lambda step, loss: bars.update(task, completed=step, description=f"distillation, loss {loss:.3f}"),
        )
    model.backbone.load_state_dict(backbone.state_dict())
    pictures = mixture.sets[0][0]
    if isinstance(model, Tiny):
        fit_tags(model, pictures, options.side, range(0, len(pictures), 3))
    else:
        tag_fit.fit_tags(model, tag_fit.read_joints(model, pictures, range(len(pictures)), options.seed), options.seed)
    _save(model.state_dict(), options, options.out)
    print(f"{options.out}: MoveNet, pruned, with fitted tags")


def _mixture(options: argparse.Namespace) -> Mixture:
    from train.augment import Augmentation
    from train.mixture import Mixture
    from train.pictures import CocoPictures, DrawnPictures, Pictures

    sets: list[tuple[Pictures, float]] = [
        (CocoPictures(a, b), weight) for a, b, weight in options.distilled + options.data
    ]
    if options.drawn:
        sets.append((DrawnPictures(options.drawn, seed=options.seed), options.drawn_weight))
    return Mixture(
        sets,
        side=options.side,
        short_side=options.short_side,
        strides=(4, 2, 1)[: 1 + options.deconvolutions],
        sigma=options.sigma,
        full_size=options.full_size,
        augmentation=Augmentation(about_person=options.about_person),
        seed=options.seed,
    )


def _on_device(mixture: Mixture, options: argparse.Namespace) -> Mixture | DeviceMixture:
    """The mixture, with its pictures in the device's memory if the options say so."""
    in_memory = options.device.startswith("cuda") if options.in_memory is None else options.in_memory
    if not in_memory:
        return mixture
    from train.device_mixture import DeviceMixture

    since = time.monotonic()
    loaded = DeviceMixture(mixture, options.batch, options.device)
    pixels = loaded.pictures.pixels
    size_gb = pixels.numel() * pixels.element_size() / 1e9
    print(f"{len(loaded.pictures)} pictures, {size_gb:.2f} GB, on {options.device} in {time.monotonic() - since:.1f} s")
    each = ", ".join(
        f"{count} of {len(pictures)}" for count, (pictures, _) in zip(loaded.quotas, mixture.sets, strict=True)
    )
    print(f"crops a batch: {each}", flush=True)
    return loaded


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, TimeRemainingColumn(), console=progress_console(), refresh_per_second=2)


def _train(options: argparse.Namespace, started: float) -> None:
    """started: when the command was, on the monotonic clock; with --timed, --minutes count from there."""
    import torch

    from export.checkpoint import load_checkpoint, read_state
    from train.loop import Run
    from train.optimise import blend
    from train.plot import plot

    torch.manual_seed(options.seed)
    if options.threads:
        torch.set_num_threads(options.threads)
    mixture = _mixture(options)
    model, mean, std = _model(options, mixture.joints)
    other = None
    if options.blend:  # read before the training, so that a wrong file is reported at once
        other = read_state(options.blend[0])
        load_checkpoint(copy.deepcopy(model), options.blend[0], grow=options.grow)  # refuses what does not fit
    validate = None
    if options.val:
        from train.validate import Validation  # decodes videos too: needs PyAV and pycocotools

        joint_set = joint_set_of(mixture.joints).name
        spec = ModelSpec(name=options.model, joint_set=joint_set, short_side=options.val_side, mean=mean, std=std)
        validate = Validation(options.val[0], options.val[1], spec, options.val_limit)

    with _progress() as bars:
        task = bars.add_task("step", total=None if options.timed else options.steps)

        def show(step: int, record: Record) -> None:
            bars.update(task, completed=step)
            if record:
                line = "  ".join(f"{name} {value:.4g}" for name, value in record.items())
                bars.console.print(f"{step:6d}  {line}", soft_wrap=True)

        def write_average(seconds: int) -> None:
            _save(run.average.model.state_dict(), options, options.run / f"average-{seconds}.safetensors")

        stream, teacher = _on_device(mixture, options), _teacher(options)
        if options.timed:
            options.minutes = max(0.0, options.minutes - (time.monotonic() - started) / 60)
        run = Run(
            model,
            stream,
            options.run,
            _run_options(options, mean, std),
            validate=validate,
            on_step=show,
            on_note=bars.console.print,
            on_snapshot=write_average,
            teacher=teacher,
        )
        bars.update(task, completed=run.step)
        finished = run.train()
    if options.out:
        if other is not None:
            blend(run.average.model, other, options.blend[1])
        _save(run.average.model.state_dict(), options, options.out)
        print(f"{options.out}: the averaged weights after {run.step} steps")
    if options.device.startswith("cuda"):
        print(f"{torch.cuda.max_memory_allocated() / 1e9:.1f} GB of device memory")
    if not finished:
        print(f"stopped after {run.step} of {options.steps} steps; run the same command to resume")
    if run.metrics_path.exists():  # last: a machine that only trains may lack matplotlib
        try:
            plot(run.metrics_path, options.run / "curve.png")
        except ModuleNotFoundError as error:
            print(f"no curve.png: {error.name} is not installed")


def _model(options: argparse.Namespace, joints: int) -> tuple[HigherHead, Channels, Channels]:
    """The network at the start of a run, and the mean and std of its input."""
    import torch

    from export.checkpoint import load_backbone, load_checkpoint
    from export.model import NARROW, build_model
    from export.tiny import TINY_MEAN, TINY_STD

    over_movenet = options.model in {*OVER_MOVENET, NARROW}
    mean, std = (TINY_MEAN, TINY_STD) if over_movenet else (IMAGENET_MEAN, IMAGENET_STD)
    if options.model in OVER_MOVENET:
        model = build_model(options.model, joints=joints)
    else:
        switches = {"deconvolutions": options.deconvolutions, "residual_blocks": options.residual_blocks}
        switches |= {"concatenate": not options.no_concatenate, "aggregate": not options.no_aggregate}
        model = build_model(options.model, joints=joints, **switches)
    if (options.run / "checkpoint.pt").exists():
        return model, mean, std  # the checkpoint has the weights
    if options.backbone:
        if options.weights or options.model != NARROW:
            raise ValueError("--backbone is for --model narrow, without --weights")
        load_backbone(model, options.backbone)
    if options.weights:
        load_checkpoint(model, options.weights, grow=options.grow)
        if options.model in OVER_MOVENET:  # training is without the output calibration of a published file
            model.get_buffer("contrast").copy_(torch.tensor([1.0, 0.0, 1.0]))
    return model, mean, std


def _teacher(options: argparse.Namespace) -> Teacher | None:
    """The network of --movenet as teacher for the sets of --distilled, which are first in the mixture; None without."""
    if not options.distilled:
        return None
    from train.teacher import Teacher
    from train.warm_start import load_movenet

    return Teacher(
        load_movenet(options.movenet),
        range(len(options.distilled)),
        options.label_share,
        options.background_share,
        options.features_weight,
    )


def _run_options(options: argparse.Namespace, mean: Channels, std: Channels) -> Options:
    from dataclasses import fields

    from train.options import Options

    given = {field.name: getattr(options, field.name) for field in fields(Options) if hasattr(options, field.name)}
    return Options(**given, mean=mean, std=std)


if __name__ == "__main__":
    sys.exit(main())
