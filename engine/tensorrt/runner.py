"""TensorRTRunner: a plan with all its memory on the GPU. The DeviceNetwork for tensorrt 10, 11 and tensorrt-rtx."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np

from core.errors import EngineError, EngineMismatch
from engine.device import Device, DeviceArray, Stream, exclusive
from engine.runner import tensors_of
from engine.shapes import Shape
from engine.tensorrt.plan import OpenPlan

if TYPE_CHECKING:
    import tensorrt_rtx as api  # the same names in every flavour; it has no stubs


class TensorRTRunner:
    """An open plan: bind() it to an input shape, fill `arrays["image"]`, enqueue(), read the other arrays.

    plan: a file, or an OpenPlan on `device`, which stays open, since several runners may share a dynamic plan.
    arrays: "image", "heatmaps", "tags" in device memory; shapes and types as in tensors_of.
    Raises EngineError if the runtime is missing, the plan is damaged or the GPU is full, EngineMismatch if the plan was
    built for another GPU or version. A plan is code: open only plans from a folder you trust.
    """

    def __init__(self, plan: str | Path | OpenPlan, device: Device) -> None:
        self._device = device
        self._owns_plan = not isinstance(plan, OpenPlan)
        self._plan = plan if isinstance(plan, OpenPlan) else OpenPlan(plan, device)
        self.engine, self.spec, self.sidecar = self._plan.flavor, self._plan.spec, self._plan.sidecar
        self.arrays: dict[str, DeviceArray] = {}
        self._scratch: DeviceArray | None = None
        self._shape: Shape | None = None
        self._context: api.IExecutionContext | None = None
        try:
            with device.current():
                self._context = self._plan.context()
        except BaseException:
            self.close()
            raise

    def bind(self, shape: Shape) -> None:
        """Allocate memory and set addresses for inputs (N, H, W). Has no effect if this shape is already bound."""
        if shape == self._shape:
            return
        if not self.sidecar.shapes.contains(shape):
            n, h, w = shape
            raise EngineMismatch(
                f"{self._plan.path} takes {self.sidecar.shapes} (NxHxW), got {n}x{h}x{w}; build another: "
                f"python -m engine {self.sidecar.onnx} --shape {n}x{h}x{w} --out other.plan"
            )
        self._shape = None
        context, tensors = self._open_context(), tensors_of(self.spec, shape)
        with self._device.current(), exclusive():
            self._plan.log.forget()
            self._free_memory()
            self.arrays = {name: self._device.empty(*tensor) for name, tensor in tensors.items()}
            self._demand(context.set_input_shape("image", self.arrays["image"].shape), f"take the input shape {shape}")
            for name, array in self.arrays.items():
                got = tuple(context.get_tensor_shape(name))
                if got != array.shape:
                    raise EngineMismatch(
                        f"{self._plan.path} gives {name} as {got}, expected {array.shape}; build it again"
                    )
                self._demand(context.set_tensor_address(name, array.pointer), f"take the memory of {name}")
            if self._plan.user_allocates:
                size_bytes = int(context.update_device_memory_size_for_shapes())
                self._scratch = self._device.empty((size_bytes,), np.uint8)
                context.set_device_memory(self._scratch.pointer, size_bytes)
        self._shape = shape

    def bound(self, shape: Shape) -> Self:
        """This runner after `bind`; closed if that fails."""
        try:
            self.bind(shape)
        except BaseException:
            self.close()
            raise
        return self

    def enqueue(self, stream: Stream) -> None:
        """Put one forward pass on `stream`, from and to `arrays`. Returns at once."""
        self._demand(self._open_context().execute_async_v3(stream.handle), "run a pass")

    def capture_problem(self, stream: Stream) -> str | None:
        """TensorRT-RTX reports it; with TensorRT, every pass after the first at a shape can be captured."""
        if self.engine != "tensorrt-rtx" or self._open_context().is_stream_capturable(stream.handle):
            return None
        rebuild = self.sidecar.rebuild_command(self._plan.path)
        return f"TensorRT-RTX says that {self._plan.path} is not stream capturable; rebuild it: {rebuild}"

    def close(self) -> None:
        """Release the context, its memory, and the plan if this runner opened it. May be called twice."""
        if self._context is not None or self._owns_plan:
            with self._device.current(), exclusive():
                self._context = None
                self._free_memory()
                if self._owns_plan:
                    self._device.free(self._plan)
        self._shape, self._owns_plan = None, False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _free_memory(self) -> None:
        scratch = () if self._scratch is None else (self._scratch,)
        self._device.free(*self.arrays.values(), *scratch)
        self.arrays, self._scratch = {}, None

    def _demand(self, done: bool, what: str) -> None:
        if not done:
            raise EngineError(f"TensorRT could not {what} of {self._plan.path}: {self._plan.log.last_error()}")

    def _open_context(self) -> api.IExecutionContext:
        if self._context is None:
            raise EngineError(f"the runner of {self._plan.path} is closed; open another")
        return self._context
