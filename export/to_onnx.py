"""From a checkpoint to a checked ONNX file: batch-norm folded, precision set, heads aggregated, ModelSpec inside."""

from __future__ import annotations

import copy
import io
import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from core.errors import ModelError
from core.files import write_whole
from core.ort import load_onnxruntime
from core.progress import Progress, unseen
from core.spec import METADATA_KEY, SIDE_MULTIPLE, ModelSpec
from export.compact import store_half
from export.head import Aggregated, HigherHead
from export.named import open_checkpoint
from export.padding import fold_padding

logger = logging.getLogger(__name__)

OPSET = 17
TOLERANCE = {"fp32": 1e-4, "fp16": 2e-2}  # of onnxruntime against PyTorch in FP32, relative to the largest output
OUTPUTS = {"heatmaps": 2, "tags": 4}  # name: input pixels per cell


def export_checkpoint(
    name_or_path: str | Path,
    out: str | Path,
    *,
    fp16: bool = True,
    size: int | None = None,
    fixed_hw: tuple[int, int] | None = None,
    check_image: str | Path | None = None,
    progress: Progress = unseen,
) -> Path:
    """A named model (downloaded if need be) or a checkpoint file as an ONNX file at `out`, which is returned.

    size: short side the model will be run at, a multiple of 64; by default the named model's. fixed_hw: fix the input
    to (1, 3, H, W); by default N, H and W stay free. check_image: picture for the check against PyTorch; noise without.
    progress: reports the download. Raises ValueError for an unknown name or size, DownloadError, ModelError.
    """
    model, spec = open_checkpoint(name_or_path, fp16=fp16, size=size, fixed_hw=fixed_hw, progress=progress)
    return export_model(model, spec, out, check_image=check_image)


def export_model(model: HigherHead, spec: ModelSpec, out: str | Path, *, check_image: str | Path | None = None) -> Path:
    """A network in memory, left untouched, as an ONNX file at `out`: what `spec` says, float32 weights expected.

    The graph: `image` in spec.input_dtype; convolutions in that precision; `heatmaps` and `tags` aggregated and given
    in float32. The file appears only after onnxruntime has agreed with PyTorch on it; the same network gives the same
    bytes. Raises ModelError if it does not agree, or cannot be written.
    """
    if model.joints != spec.num_joints:
        raise ValueError(f"the model has {model.joints} joints, the spec says {spec.joint_set} ({spec.num_joints})")
    image = _noise(spec) if check_image is None else _picture(Path(check_image), spec)
    reference = Aggregated(copy.deepcopy(model).cpu()).eval()
    graph = fold_batch_norm(reference)
    if spec.precision == "fp16":
        graph = graph.half()
    serialised = _with_spec(_trace(graph, spec), spec)
    _check(serialised, reference, image, spec)
    try:
        write_whole(Path(out), serialised)
    except OSError as error:
        raise ModelError(f"{out} cannot be written: {error}; choose another --out") from error
    return Path(out)


def fold_batch_norm(model: nn.Module) -> nn.Module:
    """A copy in evaluation mode whose batch-norms are folded into the convolutions and deconvolutions before them.

    Computed in double, stored in float32. A forward pass shows which convolution feeds which batch-norm, so any module
    structure works. Raises ModelError if a batch-norm follows something else.
    """
    model = copy.deepcopy(model).eval().float().requires_grad_(False)
    names = {module: name for name, module in model.named_modules()}
    made_by: list[tuple[Tensor, nn.Module]] = []  # keeps the tensors, so that identity stays unique
    pairs: dict[nn.Module, nn.Module] = {}

    def see_convolution(module: nn.Module, _: object, output: Tensor) -> None:
        made_by.append((output, module))

    def see_batch_norm(module: nn.Module, inputs: tuple[Tensor, ...], _: object) -> None:
        source = next((conv for output, conv in made_by if output is inputs[0]), None)
        if source is None:
            raise ModelError(f"batch-norm {names[module]} does not follow a convolution and cannot be folded")
        pairs[module] = source

    hooks = []
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            hooks.append(module.register_forward_hook(see_convolution))
        elif isinstance(module, nn.BatchNorm2d):
            hooks.append(module.register_forward_hook(see_batch_norm))
    with torch.no_grad():
        model(torch.zeros(1, 3, SIDE_MULTIPLE, SIDE_MULTIPLE))
        for hook in hooks:
            hook.remove()
        for norm, conv in pairs.items():
            _fold(conv, norm)
            model.set_submodule(names[norm], nn.Identity())
    return model


def _fold(conv: Any, norm: Any) -> None:
    """Change conv so that it computes norm(conv(x))."""
    scale = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)  # (C_out,)
    weight = conv.weight.double()
    if isinstance(conv, nn.ConvTranspose2d):  # (C_in, C_out / groups, h, w): each group of inputs has its own outputs
        by_group = weight.unflatten(0, (conv.groups, -1)) * scale.reshape(conv.groups, 1, -1, 1, 1)
        weight = by_group.flatten(0, 1)
    else:  # (C_out, C_in / groups, h, w)
        weight = weight * scale.reshape(-1, 1, 1, 1)
    bias = torch.zeros_like(scale) if conv.bias is None else conv.bias.double()
    conv.weight = nn.Parameter(weight.float(), requires_grad=False)
    shifted = (bias - norm.running_mean.double()) * scale + norm.bias.double()
    conv.bias = nn.Parameter(shifted.float(), requires_grad=False)


def _trace(graph: nn.Module, spec: ModelSpec) -> bytes:
    height, width = spec.fixed_hw or (SIDE_MULTIPLE, 2 * SIDE_MULTIPLE)
    image = torch.zeros(1, 3, height, width, dtype=getattr(torch, spec.input_dtype))
    free = {"image": {0: "N", 2: "H", 3: "W"}} | {
        name: {0: "N", 2: f"H/{stride}", 3: f"W/{stride}"} for name, stride in OUTPUTS.items()
    }
    buffer = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        # The newer exporter (dynamo=True) takes 110 s for W32 on two cores where this one takes 2 s, to the same end.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.filterwarnings("ignore", "Constant folding", UserWarning)
        torch.onnx.export(
            graph,
            (image,),
            buffer,  # type: ignore[arg-type]  # it accepts a file object, despite the annotation
            input_names=["image"],
            output_names=list(OUTPUTS),
            dynamic_axes=None if spec.fixed_hw else free,
            opset_version=OPSET,
            dynamo=False,
        )
    return buffer.getvalue()


def _with_spec(serialised: bytes, spec: ModelSpec) -> bytes:
    import onnx

    proto = onnx.load_from_string(serialised)
    fold_padding(proto)
    store_half(proto)
    onnx.helper.set_model_props(proto, {METADATA_KEY: spec.to_json()})
    result: bytes = proto.SerializeToString(deterministic=True)
    return result


def _check(serialised: bytes, reference: nn.Module, image: NDArray[np.float32], spec: ModelSpec) -> None:
    """Compare onnxruntime on the exported file with the unfolded network in FP32. Raises ModelError if they differ."""
    onnxruntime = load_onnxruntime()
    with torch.inference_mode():
        expected = [output.numpy() for output in reference(torch.from_numpy(image))]
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(serialised, options, providers=["CPUExecutionProvider"])
    got = session.run(list(OUTPUTS), {"image": image.astype(spec.input_dtype)})
    for name, ours, theirs in zip(OUTPUTS, got, expected, strict=True):
        error = float(np.abs(ours - theirs).max() / max(np.abs(theirs).max(), np.finfo(np.float32).tiny))
        logger.info("%s: onnxruntime and PyTorch differ by %.2g of the largest value", name, error)
        if ours.dtype != np.float32 or not error <= TOLERANCE[spec.precision]:  # NaN is not <= either
            raise ModelError(
                f"the exported {spec.name} gives other {name} than PyTorch: {error:.2g} of the largest value "
                f"({ours.dtype}), expected <= {TOLERANCE[spec.precision]} (float32); "
                + ("export with --fp32" if spec.precision == "fp16" else "check the weights for NaN or extreme values")
            )


def _noise(spec: ModelSpec) -> NDArray[np.float32]:
    """Blurred normal noise; other sides than the trace's, and two images, so that nothing fixed by mistake passes."""
    shape = (1, 3, *spec.fixed_hw) if spec.fixed_hw else (2, 3, 3 * SIDE_MULTIPLE, 4 * SIDE_MULTIPLE)
    noise = torch.from_numpy(np.random.default_rng(0).normal(0, 1.5, shape).astype(np.float32))
    blurred: NDArray[np.float32] = (noise + nn.functional.avg_pool2d(noise, 9, stride=1, padding=4) * 4).numpy()
    return blurred


def _picture(path: Path, spec: ModelSpec) -> NDArray[np.float32]:
    """The picture at the model's size, stretched to whole multiples of 64, normalised: (1, 3, H, W)."""
    import cv2

    frame = cv2.imread(str(path)) if path.is_file() else None
    if frame is None:
        raise ModelError(f"{path} cannot be read as a picture; expected a JPEG or PNG to check the export with")
    scale = spec.short_side / min(frame.shape[:2])
    height, width = (max(1, round(side * scale / SIDE_MULTIPLE)) * SIDE_MULTIPLE for side in frame.shape[:2])
    height, width = spec.fixed_hw or (height, width)
    rgb = cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)[..., ::-1].astype(np.float32)
    image = (rgb / 255 - np.asarray(spec.mean, np.float32)) / np.asarray(spec.std, np.float32)
    return np.ascontiguousarray(image.transpose(2, 0, 1)[None], dtype=np.float32)
