"""The parts of a training run, as the arguments of python -m train say: pictures, network, teacher, options."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from core.spec import IMAGENET_MEAN, IMAGENET_STD, Channels
from train.arguments import OVER_MOVENET

if TYPE_CHECKING:
    from export.head import HigherHead
    from train.device_mixture import DeviceMixture
    from train.ensemble_maps import EnsembleMaps
    from train.mixture import Mixture
    from train.options import Options
    from train.pictures import Pictures
    from train.teacher import Teacher


def mixture_of(options: argparse.Namespace) -> Mixture:
    from train.augment import Augmentation
    from train.mixture import Mixture
    from train.pictures import CocoPictures, DrawnPictures

    sets: list[tuple[Pictures, float]] = [
        (CocoPictures(a, b), weight) for a, b, weight in options.distilled + options.data
    ]
    if options.drawn:
        sets.append((DrawnPictures(options.drawn, seed=options.seed), options.drawn_weight))
    maps = [_maps_of(pictures, options) for pictures, _ in sets]
    if options.maps is not None and not any(maps):
        raise ValueError(f"{options.maps} has heatmaps for none of the sets; make them with --write-maps")
    return Mixture(
        sets,
        maps=maps,
        maps_share=options.maps_share,
        side=options.side,
        short_side=options.short_side,
        strides=(4, 2, 1)[: 1 + options.deconvolutions],
        sigma=options.sigma,
        full_size=options.full_size,
        augmentation=Augmentation(about_person=options.about_person),
        seed=options.seed,
    )


def _maps_of(pictures: Pictures, options: argparse.Namespace) -> EnsembleMaps | None:
    """The heatmaps of --maps for these pictures, if there are any."""
    from train.ensemble_maps import ENDING, EnsembleMaps
    from train.pictures import CocoPictures

    if options.maps is None or not isinstance(pictures, CocoPictures):
        return None
    path = options.maps / f"{pictures.path.stem}{ENDING}"
    return EnsembleMaps(path, pictures) if path.exists() else None


def on_device(mixture: Mixture, options: argparse.Namespace, on_note: Callable[[str], None]) -> Mixture | DeviceMixture:
    """The mixture, with its pictures in the device's memory if the options say so."""
    in_memory = options.device.startswith("cuda") if options.in_memory is None else options.in_memory
    if not in_memory:
        return mixture
    from train.device_mixture import DeviceMixture

    since = time.monotonic()
    loaded = DeviceMixture(mixture, options.batch, options.device)
    pixels = loaded.pictures.pixels
    size_gb = pixels.numel() * pixels.element_size() / 1e9
    on_note(
        f"{len(loaded.pictures)} pictures, {size_gb:.2f} GB, on {options.device} in {time.monotonic() - since:.1f} s"
    )
    each = ", ".join(
        f"{count} of {len(pictures)}" for count, (pictures, _) in zip(loaded.quotas, mixture.sets, strict=True)
    )
    on_note(f"crops a batch: {each}")
    return loaded


def model_of(options: argparse.Namespace, joints: int) -> tuple[HigherHead, Channels, Channels]:
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
    if options.run and (options.run / "checkpoint.pt").exists():
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


def teacher_of(options: argparse.Namespace) -> Teacher | None:
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


def run_options(options: argparse.Namespace, mean: Channels, std: Channels) -> Options:
    from dataclasses import fields

    from train.options import Options

    given = {field.name: getattr(options, field.name) for field in fields(Options) if hasattr(options, field.name)}
    return Options(**given, mean=mean, std=std)
