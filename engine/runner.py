"""The Runner protocol: a network as the pipeline sees it; and TensorRTRunner. Knows tensors, not people."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from engine.device import Device, DeviceArray, PinnedArray, Stream
from engine.errors import EngineError, EngineMismatch
from engine.flavor import load_tensorrt, make_log
from engine.gpu import find_gpu
from engine.jit_cache import context_with_cache, save_cache
from engine.shapes import Shape
from engine.sidecar import read_plan, read_sidecar
from engine.spec import ModelSpec


class Heads(NamedTuple):
    """What the network gives, float32: heatmaps (N, K, H/2, W/2) and tags (N, K, H/4, W/4)."""

    heatmaps: NDArray[np.float32]
    tags: NDArray[np.float32]


class Runner(Protocol):
    """A loaded network on the host. Use it in a `with` block, or close it."""

    spec: ModelSpec
    engine: str  # "onnxruntime", "tensorrt", "tensorrt-rtx", "torch": the `engine` of --stats

    def infer(self, images: NDArray[Any]) -> Heads:
        """One forward pass. images: (N, 3, H, W) in `spec.input_dtype`, H and W multiples of 64, C-contiguous.

        Blocks until the outputs are on the host; they are valid until the next call.
        """
        ...

    def close(self) -> None:
        """Release everything. May be called twice."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None: ...


class TensorRTRunner:
    """A Runner of plans on the GPU, for tensorrt 10, 11 and tensorrt-rtx alike.

    infer() copies in, runs and copies out. A frame step that keeps its arrays on the device calls bind() once a shape,
    uses `arrays` ("image", "heatmaps", "tags"; shapes and types as tensors_of says) and calls enqueue().
    device: one that is already open, and stays so; by default one of its own.
    Raises EngineError where the runtime, pycuda or the GPU is missing or the plan is damaged, EngineMismatch where
    the plan was built for something else. A plan is code: open only those from a folder you trust.
    """

    def __init__(self, plan: str | Path, *, device: Device | None = None) -> None:
        self._path = Path(plan)
        self.engine = read_sidecar(self._path).flavor
        trt = load_tensorrt(self.engine)
        serialised, self.sidecar = read_plan(self._path, version=trt.__version__, flavor=self.engine, gpu=find_gpu()[0])
        self.spec = self.sidecar.spec
        self._own_device = device is None
        self._device = device or Device()
        self.arrays: dict[str, DeviceArray] = {}
        self._on_host: dict[str, PinnedArray] = {}
        self._shape: Shape | None = None
        self._runtime = self._engine = self._context = self._jit_cache = None
        try:
            with self._device.current():
                self._stream = self._device.stream()
                self._load(trt, serialised)
        except BaseException:
            self.close()
            raise

    def bind(self, shape: Shape) -> None:
        """Be ready for inputs (N, H, W): memory and addresses. Nothing happens if it is so already."""
        if shape == self._shape:
            return
        if not self.sidecar.shapes.contains(shape):
            n, h, w = shape
            raise EngineMismatch(
                f"{self._path} takes {self.sidecar.shapes} (NxHxW), got {n}x{h}x{w}; build another: "
                f"python -m engine {self.sidecar.onnx} --shape {n}x{h}x{w} --out other.plan"
            )
        self._shape = None
        context, tensors = self._open_context(), tensors_of(self.spec, shape)
        with self._device.current():
            self._device.free(*self.arrays.values(), *self._on_host.values())
            self.arrays = {name: self._device.empty(*tensor) for name, tensor in tensors.items()}
            self._on_host = {name: self._device.pinned(*tensor) for name, tensor in tensors.items()}
            context.set_input_shape("image", self.arrays["image"].shape)
            for name, array in self.arrays.items():
                got = tuple(context.get_tensor_shape(name))
                if got != array.shape:
                    raise EngineMismatch(f"{self._path} gives {name} as {got}, expected {array.shape}; build it again")
                context.set_tensor_address(name, array.pointer)
        self._shape = shape

    def enqueue(self, stream: Stream) -> None:
        """Put one forward pass on `stream`, from and to `arrays`. Returns at once."""
        if not self._open_context().execute_async_v3(stream.handle):
            raise EngineError(f"TensorRT could not run {self._path}: {self._log.last_error()}")

    def infer(self, images: NDArray[Any]) -> Heads:
        """See Runner.infer. Raises EngineMismatch for a shape the plan does not take, ValueError for another type."""
        if images.ndim != 4 or images.shape[1] != 3 or images.dtype != self.spec.input_dtype:
            raise ValueError(f"images are {images.dtype} {images.shape}; expected {self.spec.input_dtype} (N, 3, H, W)")
        n, _, h, w = images.shape
        self.bind((n, h, w))
        host = {name: pinned.array for name, pinned in self._on_host.items()}
        np.copyto(host["image"], images)
        with self._device.current():
            self._stream.upload(self.arrays["image"], host["image"])
            self.enqueue(self._stream)
            self._stream.download(host["heatmaps"], self.arrays["heatmaps"])
            self._stream.download(host["tags"], self.arrays["tags"])
            self._stream.synchronize()
        return Heads(host["heatmaps"], host["tags"])

    def close(self) -> None:
        """Release the plan; and the device, if it was opened here. May be called twice."""
        if self._runtime is not None:
            with self._device.current():
                if self._jit_cache is not None:
                    save_cache(self._jit_cache, self._path)
                self._context = self._jit_cache = self._engine = self._runtime = (
                    None  # in this order, by their last references
                )
                self._device.free(*self.arrays.values(), *self._on_host.values(), self._stream)
        self.arrays, self._on_host, self._shape = {}, {}, None
        if self._own_device:
            self._device.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _load(self, trt: Any, serialised: bytes) -> None:
        self._log = make_log(trt)
        self._runtime = runtime = trt.Runtime(self._log)
        self._engine = engine = runtime.deserialize_cuda_engine(serialised)
        if engine is None:
            raise EngineError(
                f"{self.engine} cannot load {self._path}: {self._log.last_error()}; "
                "a GPU and its driver are needed: see what nvidia-smi says"
            )
        types = {"float16": trt.DataType.HALF, "float32": trt.DataType.FLOAT}
        expected = {
            name: (trt.TensorIOMode.INPUT if name == "image" else trt.TensorIOMode.OUTPUT, types[dtype])
            for name, (_, dtype) in tensors_of(self.spec, self.sidecar.shapes.best).items()
        }
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        if {name: (engine.get_tensor_mode(name), engine.get_tensor_dtype(name)) for name in names} != expected:
            raise EngineMismatch(
                f"{self._path} has the tensors {', '.join(names)}, which are not those of {self.spec.name}; "
                f"rebuild it: {self.sidecar.rebuild_command(self._path)}"
            )
        if self.engine == "tensorrt-rtx":
            self._context, self._jit_cache = context_with_cache(engine, self._path)
        else:
            self._context = engine.create_execution_context()
        if self._context is None:
            raise EngineError(f"{self._path} cannot be made ready: {self._log.last_error()}; is the GPU's memory full?")

    def _open_context(self) -> Any:
        if self._context is None:
            raise EngineError(f"the runner of {self._path} is closed; open another")
        return self._context


def tensors_of(spec: ModelSpec, shape: Shape) -> dict[str, tuple[tuple[int, ...], str]]:
    """Name -> (full shape, NumPy type) of a network's input and outputs for one (N, H, W)."""
    n, h, w = shape
    return {
        "image": ((n, 3, h, w), spec.input_dtype),
        "heatmaps": ((n, spec.num_joints, h // 2, w // 2), "float32"),
        "tags": ((n, spec.num_joints, h // 4, w // 4), "float32"),
    }
