"""Opens a FrameStep for a model and an engine. Runtimes are imported when they are needed."""

from __future__ import annotations

import importlib.util
import platform
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from core.errors import EngineError, ModelError, as_engine_error
from core.progress import Progress, unseen
from core.spec import SIDE_MULTIPLE, ModelSpec
from engine import openvino_runner
from engine.gpu import find_gpu
from engine.tensorrt.flavor import MODULES, RTX_CAPABILITIES, Flavor
from pipeline.model_files import ONNX_SUFFIX, PLAN_SUFFIX, check_model, onnx_file, torch_model
from pipeline.step import FrameStep, HostStep, PassOptions

if TYPE_CHECKING:
    from torch import nn

    from engine.device import Device
    from engine.onnx_runner import OnnxRunner
    from engine.openvino_runner import OpenVinoRunner
    from engine.runner import DeviceNetwork
    from engine.shapes import ShapeRange

DEVICES = openvino_runner.DEVICES
HOST_ENGINES = ("openvino", "onnxruntime")
ENGINES = ("auto", "tensorrt", "tensorrt-rtx", "openvino", "onnxruntime", "torch")
X86 = ("x86_64", "amd64")  # on other processors only onnxruntime was measured

DEFAULT_WH = (640, 480)  # of frames, if their size is not known

Shape = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class StepOptions(PassOptions):
    """How `open_step` runs a model.

    engine: one of ENGINES. size, flip, batch, decode: as in PassOptions.
    device: one of DEVICES, for OpenVINO; None: the CPU.
    gpu: index of the NVIDIA GPU, among those that CUDA_VISIBLE_DEVICES shows; None: the first.
    frame_wh: width and height of the frames, if known.
    Raises ValueError for an unknown name, an invalid size, and a GPU together with an engine of the host.
    """

    engine: str = "auto"
    device: str | None = None
    gpu: int | None = None
    frame_wh: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        engine, size, device = self.engine, self.size, self.device
        if engine not in ENGINES:
            raise ValueError(f"engine is {engine!r}; expected one of {', '.join(ENGINES)}")
        if size is not None and (size < SIDE_MULTIPLE or size % SIDE_MULTIPLE):
            raise ValueError(f"size is {size}; expected a positive multiple of {SIDE_MULTIPLE}, such as 256 or 512")
        if device is not None and device not in DEVICES:
            raise ValueError(f"device is {device!r}; expected one of {', '.join(DEVICES)}")
        if self.gpu is not None and (device is not None or engine in HOST_ENGINES):
            used = engine if device is None else "openvino"
            raise ValueError(f"--gpu {self.gpu} is for an NVIDIA GPU, got --engine {used}")


@dataclass(frozen=True)
class _Request:
    """The arguments of `open_step`."""

    model: str
    options: StepOptions
    progress: Progress

    @property
    def gpu(self) -> int:
        return self.options.gpu or 0


def open_step(model: str, options: StepOptions, progress: Progress = unseen) -> FrameStep:
    """The step for a model on an engine; its `about` names both in one line and gives the reason for the engine.

    If "auto" chooses a GPU, the step processes a frame of `options.frame_wh` before it is returned, so that the CPU is
    used if that fails. progress: called during slow work: a download, an export, building a plan.
    Raises ValueError for options that the model cannot use, ModelError, EngineError, DownloadError.
    """
    check_model(model)
    request, engine, device = _Request(model, options, progress), options.engine, options.device
    is_plan = Path(model).suffix == PLAN_SUFFIX
    if device is not None and (is_plan or engine not in ("auto", "openvino")):
        raise ValueError(f"--device {device} is for --engine openvino, got {model if is_plan else engine}; omit it")
    if is_plan:
        return _open_plan(request, engine)
    if engine != "auto":
        return _on_host(request, engine, "as asked") if engine in HOST_ENGINES else _on_gpu(request, engine, "as asked")
    if device is not None:
        return _on_host(request, "openvino", "for its device")
    return _open_auto(request)


def _open_auto(request: _Request) -> FrameStep:
    """The best engine that is installed and works."""
    options = request.options
    picked, why = _pick(request.model, request.gpu)
    if picked is not None:
        try:
            return _warmed_up(_on_gpu(request, picked, why), options.frame_wh or DEFAULT_WH)
        except EngineError as error:
            why = f"{picked} was tried: {error}"
    if options.gpu is not None:
        raise EngineError(f"--gpu {options.gpu} cannot be used: {why}; omit it to run on the CPU")
    return _on_best_host(request, why)


def _warmed_up(step: FrameStep, frame_wh: tuple[int, int]) -> FrameStep:
    """The step after its first frames, with plans built and kernels compiled."""
    try:
        step.warm_up(frame_wh)
    except BaseException:
        step.close()
        raise
    return step


def _pick(model: str, index: int = 0) -> tuple[str | None, str]:
    """The best installed engine for the NVIDIA GPU, or None; and the reason."""
    gpu, text = find_gpu(index)
    if gpu is None:
        return None, text
    if importlib.util.find_spec("pycuda") is None:
        return None, f"{gpu.name} was found, but pycuda is not installed: make gpu"
    if importlib.util.find_spec(MODULES["tensorrt"]) is not None:
        return "tensorrt", str(gpu)
    if importlib.util.find_spec(MODULES["tensorrt-rtx"]) is not None and gpu.compute_capability in RTX_CAPABILITIES:
        return "tensorrt-rtx", str(gpu)
    if importlib.util.find_spec("torch") is not None and Path(model).suffix != ONNX_SUFFIX:
        return "torch", f"{gpu}; no TensorRT for it is installed: make gpu"
    return None, f"{gpu.name} was found, but no TensorRT for it is installed: make gpu"


def _on_best_host(request: _Request, why: str) -> FrameStep:
    """OpenVINO if it is installed and can run the model, else onnxruntime."""
    if platform.machine().lower() in X86 and importlib.util.find_spec("openvino") is not None:
        try:
            return _on_host(request, "openvino", why)
        except (EngineError, ModelError) as error:
            why = f"{why}; openvino was tried: {error}"
    return _on_host(request, "onnxruntime", why)


def _on_host(request: _Request, engine: str, why: str) -> FrameStep:
    from kernels.cpu import warm_up

    path = onnx_file(request.model, request.progress, fp16=False)
    runner, where = _open_host_runner(path, engine, request.options.device or "CPU")
    try:
        _check_fixed(request, path, runner.spec, runner.batch)
    except ValueError:
        runner.close()
        raise
    warm_up()  # compile or load the kernels now, so that the first frame does not wait
    return HostStep(
        lambda shape: runner,
        runner.spec,
        request.options,
        engine=runner.engine,
        about=f"{runner.spec.name} on {engine}, {where} ({why})",
        parallel=runner,
        on_close=runner.close,
    )


def _open_host_runner(path: Path, engine: str, device: str) -> tuple[OnnxRunner | OpenVinoRunner, str]:
    """The runner, and a description of where it runs."""
    if engine == "onnxruntime":
        from engine.onnx_runner import OnnxRunner

        onnx = OnnxRunner(path)
        return onnx, f"{onnx.threads} CPU threads"
    from engine.openvino_runner import OpenVinoRunner

    openvino = OpenVinoRunner(path, device=device)
    where = f"{openvino.threads} CPU threads" if device == "CPU" else openvino.device
    return openvino, f"{openvino.precision}, {where}"


def _on_gpu(request: _Request, engine: str, why: str) -> FrameStep:
    _require_gpu(engine, request.gpu)
    flavor: Flavor = "tensorrt-rtx" if engine == "tensorrt-rtx" else "tensorrt"
    # report missing packages before anything is downloaded, exported or built
    if engine == "torch":
        from engine.torch_runner import load_torch

        load_torch()
        graph, spec = torch_model(request.model, fp16=True, progress=request.progress)
        return _on_device(request, spec, engine, why, _torch_networks(graph, spec))
    _require_tensorrt(flavor)
    onnx = onnx_file(request.model, request.progress, fp16=True)
    from engine.onnx_file import read_spec

    spec = read_spec(onnx)
    _check_fixed(request, onnx, spec, 1)
    return _on_device(request, spec, engine, why, _tensorrt_networks(request, onnx, flavor))


def _open_plan(request: _Request, engine: str) -> FrameStep:
    from engine.tensorrt.plan import OpenPlan
    from engine.tensorrt.runner import TensorRTRunner
    from engine.tensorrt.sidecar import read_sidecar

    plan = Path(request.model)
    sidecar = read_sidecar(plan)
    if engine not in ("auto", sidecar.flavor):
        raise ValueError(f"{plan} is a plan of {sidecar.flavor}, which {engine} cannot run; omit --engine")
    _check_plan(request, plan, sidecar.shapes)
    _require_gpu(sidecar.flavor, request.gpu)
    opened: list[OpenPlan] = []  # opened once for all shapes; the device closes it

    def network_for(shape: Shape, device: Device) -> DeviceNetwork:
        if not opened:
            opened.append(OpenPlan(plan, device))
        return TensorRTRunner(opened[0], device).bound(shape)

    return _on_device(request, sidecar.spec, sidecar.flavor, "as the plan was built", network_for)


def _on_device(
    request: _Request, spec: ModelSpec, engine: str, why: str, network_for: Callable[[Shape, Device], DeviceNetwork]
) -> FrameStep:
    from engine.device import Device
    from pipeline.device_step import DeviceStep

    with as_engine_error("the GPU cannot be used"), ExitStack() as opened:
        device = opened.enter_context(Device(request.gpu))
        step = DeviceStep(
            device,
            lambda shape: network_for(shape, device),
            spec,
            request.options,
            engine=engine,
            about=f"{spec.name} on {engine} ({why})",
        )
        opened.pop_all()
        return step


def _tensorrt_networks(request: _Request, onnx: Path, flavor: Flavor) -> Callable[[Shape, Device], DeviceNetwork]:
    from engine.tensorrt.plan_cache import cached_plan
    from engine.tensorrt.runner import TensorRTRunner

    def network_for(shape: Shape, device: Device) -> DeviceNetwork:
        plan = cached_plan(onnx, shape, flavor, progress=request.progress, device=device)
        return TensorRTRunner(plan, device).bound(shape)

    return network_for


def _torch_networks(graph: nn.Module, spec: ModelSpec) -> Callable[[Shape, Device], DeviceNetwork]:
    from engine.torch_runner import TorchNetwork

    return lambda shape, device: TorchNetwork(graph, spec, shape, device)


def _require_tensorrt(flavor: Flavor) -> None:
    """Raises EngineError if the flavour is not installed; it names the other one if that is installed."""
    from engine.tensorrt.flavor import load_tensorrt

    try:
        load_tensorrt(flavor)
    except EngineError as error:
        others = [name for name in MODULES if name != flavor and importlib.util.find_spec(MODULES[name]) is not None]
        if not others:
            raise
        raise EngineError(f"{error}; or use --engine {others[0]}, which is installed") from error


def _require_gpu(engine: str, index: int) -> None:
    gpu, text = find_gpu(index)
    if gpu is None:
        raise EngineError(
            f"engine {engine} needs an NVIDIA GPU: {text}; run `make gpu` on a machine that has one, "
            "or use --engine onnxruntime"
        )
    if importlib.util.find_spec("pycuda") is None:
        raise EngineError(f"engine {engine} needs pycuda, which is not installed; run `make gpu`")


def _check_fixed(request: _Request, path: Path, spec: ModelSpec, images: int | None) -> None:
    """Raises ValueError if a file exported with --fixed is asked for another size, or for more images a pass than it
    takes. images: N if the file fixes it."""
    options = request.options
    if spec.fixed_hw is None:
        return
    if options.size is not None:
        asked = "--size"
    elif images is not None and options.batch * options.images_per_frame > images:
        asked = "--batch" if options.batch > images else "--flip"
    else:
        return
    h, w = spec.fixed_hw
    raise ValueError(
        f"{path} is fixed to {images or 'N'}x3x{h}x{w} and cannot do {asked}; export it without --fixed: "
        f"python -m export {spec.name} --out {path.name}"
    )


def _check_plan(request: _Request, plan: Path, shapes: ShapeRange) -> None:
    """Raises ValueError if a plan is asked for a size or for images a pass for which it is not built."""
    options = request.options
    if options.size is not None and shapes.is_static:
        raise ValueError(f"{plan} is built for {shapes} (NxHxW) and cannot do --size; run its .onnx instead")
    images = options.batch * options.images_per_frame
    if not shapes.smallest[0] <= images <= shapes.largest[0]:
        flip = " with --flip" if options.flip else ""
        raise ValueError(
            f"{plan} is built for {shapes} (NxHxW), got --batch {options.batch}{flip}, which is N = {images}; "
            "run its .onnx instead, or build another plan: python -m engine"
        )
