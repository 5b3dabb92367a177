"""OpenVinoRunner: a network on the CPU, integrated graphics or NPU by OpenVINO. Without its telemetry."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections import OrderedDict, deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np

from core.errors import EngineError, ModelError
from core.spec import ModelSpec
from engine.onnx_file import read_spec, sha256_of
from engine.onnx_runner import INPUT, MAX_CONCURRENCY, OUTPUTS, usable_cores
from engine.openvino_cache import CompiledCache
from engine.openvino_precision import MARKING, ends_in_fp32, keep_in_fp32
from engine.runner import Heads, Images

if TYPE_CHECKING:
    import openvino

logger = logging.getLogger(__name__)

DEVICES = ("CPU", "GPU", "NPU")  # the processor, Intel's graphics, a neural processing unit
ACCELERATOR_CONCURRENCY = 2  # one pass computes while the next one's images are transferred
MAX_SHAPES = 8  # compiled models, about 40 MB each for the bundled one; a set of photographs has only a few shapes
PRECISIONS = {"f32": "fp32", "f16": "fp16", "bf16": "bf16"}
TYPES = {"f32": "float32", "f16": "float16"}
BF16 = "BF16"  # in OPTIMIZATION_CAPABILITIES: the processor has fast bf16 instructions (AMX or AVX512-BF16)

Shape = tuple[int, int, int]


class OpenVinoRunner:
    """A `.onnx` file made by `python -m export`. Use it in a `with` block, or close it.

    device: "CPU", "GPU" (Intel's, integrated or not) or "NPU". threads: CPU threads; by default the number of cores
    this process may use. cache: folder of compiled models; by default the user's. batch: N if the file fixes it, else
    None. precision: on a CPU with bf16 "bf16", with the last layers before both outputs in FP32, and in the bundled
    models all layers but the backbone's blocks; on any other CPU FP32; on other devices the one the device prefers.
    concurrency: number of `infer_into` calls that share the device.
    On a CPU the images of a batch are passes of their own, side by side, unless the file fixes N: as fast, and one
    compiled model serves every N. A model for each N would cost some 30 MB and threads of its own.
    Raises ModelError if the file is not such a model, EngineError if OpenVINO or the device is missing or a
    pass fails.
    """

    engine = "openvino"

    def __init__(
        self, path: Path, *, device: str = "CPU", threads: int | None = None, cache: CompiledCache | None = None
    ) -> None:
        if not path.is_file():
            raise ModelError(f"{path} does not exist; expected an ONNX file made by python -m export")
        self.spec = read_spec(path)
        load_openvino()
        import openvino

        self._core, self._tensor, self._partial_shape = process_core(), openvino.Tensor, openvino.PartialShape
        self.device = _find_device(self._core, device)
        self.threads = threads or usable_cores()
        self._has_fewer_threads = self.threads != os.cpu_count()
        self._on_cpu = device == "CPU"
        self.concurrency = min(self.threads, MAX_CONCURRENCY) if self._on_cpu else ACCELERATOR_CONCURRENCY
        capabilities = self._core.get_property(self.device, "OPTIMIZATION_CAPABILITIES")
        self.precision = ("bf16" if BF16 in capabilities else "fp32") if self._on_cpu else self._preferred()
        self._cache = (cache or CompiledCache.of_user()) if "EXPORT_IMPORT" in capabilities else None
        self._made_of = (
            sha256_of(path),
            openvino.__version__,
            self._core.get_property(self.device, "FULL_DEVICE_NAME"),
            *sorted(capabilities),
            MARKING,
        )
        self._path = path
        self._model: openvino.Model | None = _read(self._core, path)
        self.batch = _check(self._model, self.spec, path)
        self._one_by_one = self._on_cpu and self.batch is None
        self._outputs = Heads(*(np.empty((0, 0, 0, 0), np.float32),) * 2)  # of `infer` for several images
        self._compiled: OrderedDict[tuple[Shape, int], _Compiled] = OrderedDict()
        self._compiling = threading.Lock()

    def infer(self, images: Images) -> Heads:
        self._check_images(images)
        if self._one_by_one and len(images) > 1:
            heads = self._outputs_for(images)
            self.infer_into(images, heads)
            return heads
        compiled = self._ready(images, 1)
        request = compiled.alone
        self._start(request, images)
        self._wait(request, images)
        return Heads(*(request.get_tensor(name).data for name in OUTPUTS))

    def infer_into(self, images: Images, heads: Heads) -> None:
        """See ParallelRunner."""
        self._check_images(images)
        size = 1 if self._one_by_one else len(images)
        compiled = self._ready(images[:size], self.concurrency)
        requests = [compiled.take() for _ in range(0, len(images), size)]
        with ExitStack() as begun:  # waits for each pass, also if another fails: they use the caller's arrays
            for n, request in enumerate(requests):
                part = slice(n * size, (n + 1) * size)
                self._start(request, images[part], Heads(heads.heatmaps[part], heads.tags[part]))
                begun.callback(self._wait, request, images)
        compiled.free.extend(requests)

    def close(self) -> None:
        self._model = None
        self._compiled.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _start(self, request: openvino.InferRequest, images: Images, heads: Heads | None = None) -> None:
        """Begin a pass, whose outputs are `heads` or OpenVINO's own."""
        tensor = self._tensor
        with self._as_engine_error(images):
            request.set_tensor(INPUT, tensor(images, shared_memory=True))
            for name, array in zip(OUTPUTS, heads or (), strict=heads is not None):
                request.set_tensor(name, tensor(array, shared_memory=True))
            request.start_async()  # `infer` of the Python binding copies every output

    def _wait(self, request: openvino.InferRequest, images: Images) -> None:
        with self._as_engine_error(images):
            request.wait()

    @contextmanager
    def _as_engine_error(self, images: Images) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            raise EngineError(f"{self._path} failed on an input {images.shape}: {_last_line(error)}") from error

    def _outputs_for(self, images: Images) -> Heads:
        """Buffers for the outputs of a batch, made anew only for more images or another size."""
        n, _, h, w = images.shape
        size = h // 2, w // 2
        if self._outputs.heatmaps.shape[2:] != size or len(self._outputs.heatmaps) < n:
            self._outputs = Heads(
                np.empty((n, self.spec.num_joints, *size), np.float32),
                np.empty((n, self.spec.tag_channels, h // 4, w // 4), np.float32),
            )
        return Heads(self._outputs.heatmaps[:n], self._outputs.tags[:n])

    def _check_images(self, images: Images) -> None:
        if images.ndim != 4 or not len(images) or images.shape[1] != 3 or images.dtype != self.spec.input_dtype:
            raise ValueError(f"images are {images.dtype} {images.shape}; expected {self.spec.input_dtype} (N, 3, H, W)")

    def _ready(self, images: Images, concurrency: int) -> _Compiled:
        """The model compiled for this input shape and for `concurrency` concurrent passes."""
        n, _, h, w = images.shape
        key = (n, h, w), concurrency
        with self._compiling:
            if self._model is None:
                raise EngineError(f"{self._path} is closed")
            compiled = self._compiled.get(key)
            if compiled is None:
                model = self._compile((n, h, w), concurrency)
                compiled = self._compiled[key] = _Compiled(model, model.create_infer_request())
                if len(self._compiled) > MAX_SHAPES:
                    self._compiled.popitem(last=False)
            self._compiled.move_to_end(key)
            return compiled

    def _compile(self, shape: Shape, concurrency: int) -> openvino.CompiledModel:
        assert self._model is not None
        n, h, w = shape
        try:
            model = self._model.clone()
            if not model.input(INPUT).get_partial_shape().compatible(self._partial_shape([n, 3, h, w])):
                raise EngineError(f"{self._path} takes {model.input(INPUT).get_partial_shape()}, got {n}x3x{h}x{w}")
            model.reshape({INPUT: [n, 3, h, w]})
            channels = {2: self.spec.num_joints, 4: self.spec.tag_channels}
            expected = [[n, channels[step], h // step, w // step] for step in (2, 4)]
            got = [list(model.output(name).get_shape()) for name in OUTPUTS]
            if got != expected:
                raise EngineError(
                    f"{self._path} gives heatmaps {got[0]} and tags {got[1]} for an input {n}x3x{h}x{w}; expected "
                    f"{expected[0]} and {expected[1]}; export it again"
                )
            if self.precision == "bf16":
                compiled = self._compile_for(model, "bf16", shape, concurrency)
                if ends_in_fp32(compiled.get_runtime_model()):
                    return compiled
                logger.warning("OpenVINO does not keep the last layers in FP32 here: all of them are, which is slower")
                self.precision = "fp32"
            return self._compile_for(model, "f32" if self._on_cpu else None, shape, concurrency)
        except EngineError:
            raise
        except RuntimeError as error:
            raise EngineError(
                f"{self._path} cannot be made ready for an input {n}x3x{h}x{w} on {self.device}: {_last_line(error)}"
            ) from error

    def _compile_for(
        self, model: openvino.Model, precision: str | None, shape: Shape, concurrency: int
    ) -> openvino.CompiledModel:
        settings: dict[str, str | int | bool] = {"PERFORMANCE_HINT": "LATENCY" if concurrency == 1 else "THROUGHPUT"}
        if precision is not None:
            settings["INFERENCE_PRECISION_HINT"] = precision
        if self._on_cpu:
            # Not pinned: if a stage of the pipeline occupies a core for a moment, a pass can move to another core.
            settings |= {"ENABLE_CPU_PINNING": False}
            if concurrency > 1:
                settings |= {"NUM_STREAMS": concurrency, "INFERENCE_NUM_THREADS": self.threads}
            elif self._has_fewer_threads:
                settings |= {"INFERENCE_NUM_THREADS": self.threads}  # the default omits slow cores, second threads
        # on a CPU the cached file does not depend on the number of streams
        made_of = *self._made_of, precision, shape, None if self._on_cpu else concurrency
        blob = None if self._cache is None else self._cache.read(*made_of)
        if self._cache is not None and blob is not None:
            try:
                return self._core.import_model(blob, self.device, settings)
            except RuntimeError as error:  # the driver no longer accepts the cached file
                logger.info("a kept model is made again: %s", _last_line(error))
                self._cache.remove(*made_of)
        if precision == "bf16":
            model = keep_in_fp32(self._core, model, OUTPUTS)
        compiled = self._core.compile_model(model, self.device, settings)
        if self._cache is not None:
            self._cache.write(compiled.export_model().getvalue(), *made_of)
        return compiled

    def _preferred(self) -> str:
        return PRECISIONS.get(self._core.get_property(self.device, "INFERENCE_PRECISION_HINT").get_type_name(), "fp16")


@dataclass(frozen=True)
class _Compiled:
    model: openvino.CompiledModel
    alone: openvino.InferRequest  # for `infer`; OpenVINO owns its outputs
    free: deque[openvino.InferRequest] = field(default_factory=deque)  # idle requests for concurrent passes

    def take(self) -> openvino.InferRequest:
        """An idle request, or a new one; give it back to `free`."""
        try:
            return self.free.pop()
        except IndexError:
            return self.model.create_infer_request()


def load_openvino() -> None:
    """Import openvino without its telemetry, to protect the privacy of the people in the images. By default it reports
    each import over HTTPS, unless a file in the user's home forbids it. Raises EngineError if it is not installed.
    """
    if "openvino" in sys.modules:
        return
    with _hidden("openvino_telemetry"):  # openvino then uses its own stub
        try:
            import openvino  # noqa: F401
        except ImportError as error:
            raise EngineError(f"openvino cannot be loaded ({error}); pip install openvino") from error


@cache
def process_core() -> openvino.Core:
    """The one Core of this process, never closed.

    The CPU plugin allocates a signal stack for the thread that loads it, and frees the stack when the last Core is
    destroyed, on any thread: a later signal to the first thread ends the process with SIGSEGV (OpenVINO 2026.4).
    """
    import openvino

    return openvino.Core()


@contextmanager
def _hidden(module: str) -> Iterator[None]:
    """Within the block, importing the module fails as if it were not installed."""
    before = sys.modules.get(module)
    sys.modules[module] = None  # type: ignore[assignment]  # import then raises ImportError
    try:
        yield
    finally:
        del sys.modules[module]
        if before is not None:
            sys.modules[module] = before


def _find_device(core: openvino.Core, device: str) -> str:
    """OpenVINO's name of the first such device: of two GPUs "GPU.0" is integrated."""
    if device not in DEVICES:
        raise ValueError(f"device is {device!r}; expected one of {', '.join(DEVICES)}")
    there = core.available_devices
    for name in there:
        if name.split(".")[0] == device:
            return str(name)
    raise EngineError(
        f"device {device} is not here: OpenVINO sees {', '.join(there)}; install its driver, or use --device CPU"
    )


def _read(core: openvino.Core, path: Path) -> openvino.Model:
    try:
        return core.read_model(path)
    except RuntimeError as error:
        raise ModelError(f"{path} is no readable ONNX model: {_last_line(error)}; export it again") from error


def _check(model: openvino.Model, spec: ModelSpec, path: Path) -> int | None:
    """Raises ModelError unless names, types and ranks agree with the spec. Returns the batch size if it is fixed."""
    ports = {name: port for port in (*model.inputs, *model.outputs) for name in port.get_names()}
    if len(model.inputs) != 1 or not {INPUT, *OUTPUTS} <= ports.keys():
        raise ModelError(
            f"{path} has the tensors {', '.join(sorted(ports))}; expected {INPUT} and {', '.join(OUTPUTS)}; "
            "make it with python -m export"
        )
    for name, dtype in {INPUT: spec.input_dtype, **dict.fromkeys(OUTPUTS, "float32")}.items():
        port = ports[name]
        shape, kind = port.get_partial_shape(), port.get_element_type().get_type_name()
        if TYPES.get(kind) != dtype or len(shape) != 4:
            raise ModelError(f"{path}: {name} is {kind} {shape}; its spec says {dtype} with 4 axes")
        if name in OUTPUTS and shape[1].is_static and (misfit := spec.misfit(name, shape[1].get_length())):
            raise ModelError(f"{path}: {name} has {misfit}")
    batch = ports[INPUT].get_partial_shape()[0]
    return batch.get_length() if batch.is_static else None


def _last_line(error: BaseException) -> str:
    """The last line of OpenVINO's message, which names the cause; the lines before name places in its source."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].rstrip(".") if lines else type(error).__name__
