"""A named model or a checkpoint file as a network in memory, and what its input has to be. Needs torch."""

from __future__ import annotations

from pathlib import Path

from core.errors import ModelError
from core.joints import joint_set_of
from core.progress import Progress, unseen
from core.spec import IMAGENET_MEAN, IMAGENET_STD, Channels, ModelSpec
from export import zoo
from export.checkpoint import build_from_checkpoint
from export.head import HigherHead
from export.hrnet import HigherHRNet
from export.small import TAG_DIMS, Small
from export.tiny import TINY_MEAN, TINY_STD


def open_checkpoint(
    name_or_path: str | Path,
    *,
    fp16: bool = True,
    size: int | None = None,
    fixed_hw: tuple[int, int] | None = None,
    progress: Progress = unseen,
) -> tuple[HigherHead, ModelSpec]:
    """The network, in evaluation mode with float32 weights, and the spec of the ONNX file that is made of it.

    The arguments and the errors are those of `export.to_onnx.export_checkpoint`.
    """
    path, entry = _resolve(name_or_path, progress)
    model = build_from_checkpoint(path)
    try:
        joint_set = joint_set_of(model.joints)
    except ValueError as error:
        raise ModelError(f"{path} does not fit: {error}") from error
    mean, std, short_side = _input_of(model)
    spec = ModelSpec(
        name=entry.name if entry else path.name.split(".")[0],
        joint_set=joint_set.name,
        short_side=size if size is not None else entry.short_side if entry else short_side,
        fixed_hw=fixed_hw,
        precision="fp16" if fp16 else "fp32",
        mean=mean,
        std=std,
        tag_dims=TAG_DIMS if isinstance(model, Small) else 1,
    )
    return model, spec


def _input_of(model: HigherHead) -> tuple[Channels, Channels, int]:
    """Mean, standard deviation and usual short side of the network's input."""
    if isinstance(model, HigherHRNet):
        return IMAGENET_MEAN, IMAGENET_STD, 512
    # small's too: the same backbone
    return TINY_MEAN, TINY_STD, zoo.MODELS["small" if isinstance(model, Small) else "tiny"].short_side


def _resolve(name_or_path: str | Path, progress: Progress) -> tuple[Path, zoo.ZooModel | None]:
    name = str(name_or_path)
    if name in zoo.MODELS:
        return zoo.locate(name, progress=progress), zoo.MODELS[name]
    path = Path(name_or_path)
    if not path.exists():
        raise ValueError(f"{name} is neither a file nor a named model; expected one of {', '.join(zoo.MODELS)}")
    return path, None
