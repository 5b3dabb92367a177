"""TensorRTRunner: a plan on the GPU, all its memory there. The DeviceNetwork of tensorrt 10, 11 and tensorrt-rtx."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from core.errors import EngineError, EngineMismatch
from engine.device import Device, DeviceArray, Stream
from engine.gpu import find_gpu
from engine.runner import tensors_of
from engine.shapes import Shape
from engine.tensorrt.flavor import load_tensorrt, make_log
from engine.tensorrt.jit_cache import context_with_cache, save_cache
from engine.tensorrt.sidecar import read_plan, read_sidecar


class TensorRTRunner:
    """A plan, open: bind() it to an input shape, fill `arrays["image"]`, enqueue(), read the others.

    arrays: "image", "heatmaps", "tags" in device memory; shapes and types as tensors_of says.
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
        self._shape: Shape | None = None
        self._runtime = self._engine = self._context = self._jit_cache = None
        try:
            with self._device.current():
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
            self._device.free(*self.arrays.values())
            self.arrays = {name: self._device.empty(*tensor) for name, tensor in tensors.items()}
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

    def capture_problem(self, stream: Stream) -> str | None:
        """TensorRT-RTX can tell; of TensorRT, every pass after the first at a shape can be captured."""
        if self.engine != "tensorrt-rtx" or self._open_context().is_stream_capturable(stream.handle):
            return None
        return f"TensorRT-RTX says that {self._path} is not stream capturable"

    def close(self) -> None:
        """Release the plan; and the device, if it was opened here. May be called twice."""
        if self._runtime is not None:
            with self._device.current():
                if self._jit_cache is not None:
                    save_cache(self._jit_cache, self._path)
                self._context = self._jit_cache = self._engine = self._runtime = (
                    None  # in this order, by their last references
                )
                self._device.free(*self.arrays.values())
        self.arrays, self._shape = {}, None
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
