"""A plan on the GPU: read, checked and deserialised once, and then used for any number of input shapes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from core.errors import EngineError, EngineMismatch
from engine.device import Device, exclusive
from engine.gpu import find_gpu
from engine.runner import tensors_of
from engine.tensorrt.flavor import load_tensorrt, make_log
from engine.tensorrt.jit_cache import load_cache, save_cache
from engine.tensorrt.sidecar import read_plan, read_sidecar

if TYPE_CHECKING:
    import tensorrt_rtx as api  # the same names in every flavour; it has no stubs


class OpenPlan:
    """A deserialised plan. `device` frees it when it closes; `device.free(plan)` frees it earlier, after its contexts.

    Raises EngineError if the runtime or the GPU is missing or the plan is damaged, EngineMismatch if the plan was built
    for another GPU or version. A plan is code: open only plans from a folder you trust.
    """

    def __init__(self, plan: str | Path, device: Device) -> None:
        self.path, self.device = Path(plan), device
        self.flavor = read_sidecar(self.path).flavor
        self._trt = trt = load_tensorrt(self.flavor)
        gpu = find_gpu(device.index)[0]
        serialised, self.sidecar = read_plan(self.path, version=trt.__version__, flavor=self.flavor, gpu=gpu)
        self.spec = self.sidecar.spec
        self.log = make_log(trt)
        self._runtime: api.Runtime | None = None
        self._engine: api.ICudaEngine = None  # until it is loaded, and after close
        self._runtime_config: api.IRuntimeConfig = None  # TensorRT-RTX only, like the next
        self._jit_cache: api.IRuntimeCache = None
        device.own(self)
        try:
            with device.current(), exclusive():
                self._load(serialised)
        except BaseException:
            with device.current():
                device.free(self)
            raise

    @property
    def user_allocates(self) -> bool:
        """Whether the caller allocates a context's memory: with TensorRT-RTX, a pass can be captured only then."""
        return self.flavor == "tensorrt-rtx"

    def context(self) -> api.IExecutionContext:
        """A new IExecutionContext; release it before the plan. Raises EngineError if the GPU is full."""
        self.log.forget()
        with exclusive():
            if self._runtime_config is not None:
                context = self._engine.create_execution_context(self._runtime_config)
            else:
                context = self._engine.create_execution_context()
        if context is None:
            raise EngineError(f"{self.path} cannot be made ready: {self.log.last_error()}; is the GPU's memory full?")
        return context

    def free(self) -> None:
        if self._jit_cache is not None:
            save_cache(self._jit_cache, self.path)
        # In this order: dropping the last reference releases each object.
        self._jit_cache = self._runtime_config = self._engine = self._runtime = None

    def _load(self, serialised: bytes) -> None:
        trt = self._trt
        self.log.forget()
        self._runtime = runtime = trt.Runtime(self.log)
        self._engine = engine = runtime.deserialize_cuda_engine(serialised)
        if engine is None:
            raise EngineError(
                f"{self.flavor} cannot load {self.path}: {self.log.last_error()}; "
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
                f"{self.path} has the tensors {', '.join(names)}, which are not those of {self.spec.name}; "
                f"rebuild it: {self.sidecar.rebuild_command(self.path)}"
            )
        if self.flavor == "tensorrt-rtx":
            self._runtime_config = runtime_config = engine.create_runtime_config()
            runtime_config.set_execution_context_allocation_strategy(
                trt.ExecutionContextAllocationStrategy.USER_MANAGED
            )
            # We capture the frame into our own graph, and a graph keeps the kernels it was captured with. So no
            # temporary kernels may run while those for a dynamic plan's shape are compiled.
            runtime_config.cuda_graph_strategy = trt.CudaGraphStrategy.DISABLED
            if not self.sidecar.shapes.is_static:
                eager = trt.DynamicShapesKernelSpecializationStrategy.EAGER
                runtime_config.dynamic_shapes_kernel_specialization_strategy = eager
            self._jit_cache = load_cache(runtime_config, self.path)
