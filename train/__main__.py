"""python -m train: train a network, resume a stopped run, or prepare data.

  python -m train --run runs/tiny --data train.json,train/ --drawn 400 --val val.json,val/ --out models/tiny.safetensors
  python -m train --movenet movenet-multipose.json --data train.json,train/ --out runs/start.safetensors
  python -m train --run runs/tiny --movenet movenet-multipose.json --distilled train.json,train/ --drawn 400
  python -m train --pack train.zip --data train.json,train/
  python -m train --model small --weights models/small.safetensors --write-maps maps --val-side 384 --data train.zip
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
from functools import partial
from typing import TYPE_CHECKING

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from core.command_line import OK, REFUSED, complain
from core.errors import PoseError, describe
from core.joints import joint_set_of
from core.progress import progress_console
from core.spec import ModelSpec
from train.arguments import PROG, parse
from train.assemble import mixture_of, model_of, on_device, run_options, teacher_of

if TYPE_CHECKING:
    from pathlib import Path

    from rich.progress import TaskID
    from torch import Tensor

    from evaluation.annotations import Annotations
    from train.loop import Record


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status: 0 (also after --minutes), 2 for bad arguments or input, 128 + a signal."""
    started = time.monotonic()
    options = parse(__doc__, arguments)
    try:
        with stop_signals():
            if options.device != "cpu":
                _check_device(options.device)
            if options.out:  # now, not after hours of training
                options.out.parent.mkdir(parents=True, exist_ok=True)
            if options.scenes:
                _draw_scenes(options)
            elif options.pack:
                _pack(options)
            elif options.write_maps:
                _write_maps(options)
            elif options.movenet and not options.distilled:
                _start_from_movenet(options)
            else:
                _train(options, started)
    except (ValueError, PoseError, OSError) as error:
        return complain(PROG, _one_line(error), REFUSED)
    except KeyboardInterrupt as error:
        stop = stop_of(error)
        return complain(PROG, f"{stop}; run the same command to resume from the last checkpoint", stop.status)
    return OK


def _one_line(error: Exception) -> str:
    """An error of a worker process comes with the worker's traceback, whose last line is the error."""
    text = str(error)
    return text.strip().splitlines()[-1] if text.startswith("Caught ") else describe(error)


def _check_device(name: str) -> None:
    import torch

    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"--device {name}: expected cpu, cuda, cuda:1 and so on") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"--device {name}: PyTorch finds no GPU here; omit it, or install a CUDA build of PyTorch")


def _check_joints(annotations: Annotations, joints: int) -> None:
    if annotations.joints != joints:
        raise ValueError(
            f"{annotations.path} labels {annotations.joints} joints and the training {joints}; expected the same "
            "skeleton in both"
        )


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


def _write_maps(options: argparse.Namespace) -> None:
    from train.ensemble import write_maps
    from train.ensemble_maps import ENDING
    from train.pictures import CocoPictures

    sets = [CocoPictures(labels, folder) for labels, folder, _ in options.data]
    model, mean, std = model_of(options, sets[0].joints)
    options.write_maps.mkdir(parents=True, exist_ok=True)
    for pictures in sets:
        out = options.write_maps / f"{pictures.path.stem}{ENDING}"
        with _progress() as bars:
            task = bars.add_task(out.name, total=len(pictures))
            write_maps(
                model,
                pictures,
                out,
                short_side=options.val_side,
                mean=mean,
                std=std,
                flip_order=joint_set_of(pictures.joints).flip,
                device=options.device,
                bf16=options.bf16,
                on_picture=partial(_show_count, bars, task),
            )
        print(f"{out}: heatmaps of {len(pictures)} pictures, {out.stat().st_size / 1e6:.1f} MB")


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
    mixture = mixture_of(options)
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


def _show_count(bars: Progress, task: TaskID, count: int) -> None:
    bars.update(task, completed=count)


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, TimeRemainingColumn(), console=progress_console(), refresh_per_second=2)


def _train(options: argparse.Namespace, started: float) -> None:  # noqa: PLR0915  (one step after another)
    """started: when the command was, on the monotonic clock; with --timed, --minutes count from there."""
    import torch

    from export.checkpoint import load_checkpoint, read_state
    from train.loop import Run
    from train.optimise import blend
    from train.plot import plot

    torch.manual_seed(options.seed)
    if options.threads:
        torch.set_num_threads(options.threads)
    mixture = mixture_of(options)
    model, mean, std = model_of(options, mixture.joints)
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
        _check_joints(validate.annotations, mixture.joints)

    with _progress() as bars:
        task = bars.add_task("step", total=None if options.timed else options.steps)

        def show(step: int, record: Record) -> None:
            bars.update(task, completed=step)
            if record:
                line = "  ".join(f"{name} {value:.4g}" for name, value in record.items())
                bars.console.print(f"{step:6d}  {line}", soft_wrap=True)

        def write_average(seconds: int) -> None:
            _save(run.average.model.state_dict(), options, options.run / f"average-{seconds}.safetensors")

        stream, teacher = on_device(mixture, options, partial(print, flush=True)), teacher_of(options)
        if options.timed:
            options.minutes = max(0.0, options.minutes - (time.monotonic() - started) / 60)
        run = Run(
            model,
            stream,
            options.run,
            run_options(options, mean, std),
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


if __name__ == "__main__":
    sys.exit(main())
