"""A stand-in for tensorrt or tensorrt_rtx on the fake driver: as strict as the real ones are about order and state.

It "runs" a network whose outputs are the mean of its input. Each fault that the real ones can report is a switch:
`refuses` names setters that say False, `shapes` gives an output another shape.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from core.spec import ModelSpec
from engine.shapes import ShapeRange
from engine.tensorrt.sidecar import Sidecar, write_plan

SPEC = ModelSpec(name="small", precision="fp16", short_side=128)
PORTABLE: dict[str, Any] = {"flavor": "tensorrt-rtx", "gpu": "portable", "compute_capability": "portable"}
SHAPES = ShapeRange((1, 64, 64), (1, 64, 128), (2, 128, 128))
SCRATCH_BYTES = 1 << 20


class FakeTensorRT(ModuleType):
    __version__ = "10.0"

    def __init__(self, driver, *, rtx=False, joints=17):
        super().__init__("tensorrt_rtx" if rtx else "tensorrt")
        self.driver, self.rtx, self.joints = driver, rtx, joints
        self.calls: list[tuple[object, ...]] = []
        self.loads = self.has_memory = self.runs = self.capturable = True
        self.refuses: set[str] = set()
        self.shapes: dict[str, tuple[int, ...]] = {}  # of outputs, instead of what the input's shape says
        self.types = {"image": "float16", "heatmaps": "float32", "tags": "float32"}
        self.loggers: set[int] = set()
        self.deserialised = 0
        self.contexts = 0  # that live
        self.DataType = SimpleNamespace(HALF="float16", FLOAT="float32")
        self.TensorIOMode = SimpleNamespace(INPUT="in", OUTPUT="out")
        self.ILogger = ILogger
        self.Runtime = lambda log: Runtime(self, log)
        if rtx:
            self.ExecutionContextAllocationStrategy = SimpleNamespace(STATIC="static", USER_MANAGED="user managed")
            self.CudaGraphStrategy = SimpleNamespace(DISABLED="disabled", WHOLE_GRAPH_CAPTURE="whole graph")
            self.DynamicShapesKernelSpecializationStrategy = SimpleNamespace(LAZY="lazy", EAGER="eager", NONE="none")


class ILogger:
    Severity = SimpleNamespace(INTERNAL_ERROR=0, ERROR=1, WARNING=2, INFO=3, VERBOSE=4)


class Runtime:
    def __init__(self, fake, log):
        self.fake, self.log = fake, log
        fake.loggers.add(id(log))

    def deserialize_cuda_engine(self, plan):
        self.fake.driver.wait_for_device("deserialize_cuda_engine")
        assert plan == b"plan"
        if not self.fake.loads:
            self.log.log(1, "CUDA driver version\n is insufficient")
            return None
        self.fake.deserialised += 1
        return Engine(self.fake)


class Engine:
    def __init__(self, fake):
        self.fake = fake

    @property
    def num_io_tensors(self):
        return len(self.fake.types)

    def get_tensor_name(self, index):
        return list(self.fake.types)[index]

    def get_tensor_mode(self, name):
        return "in" if name == "image" else "out"

    def get_tensor_dtype(self, name):
        return self.fake.types[name]

    def create_runtime_config(self):
        assert self.fake.rtx
        return RuntimeConfig()

    def create_execution_context(self, runtime_config=None):
        self.fake.driver.wait_for_device("create_execution_context")
        assert (runtime_config is not None) == self.fake.rtx
        return Context(self.fake, runtime_config) if self.fake.has_memory else None


class RuntimeConfig:
    """allocation, cuda_graph_strategy and specialisation start as the real ones do."""

    def __init__(self):
        self.allocation, self.cache = "static", None
        self.cuda_graph_strategy, self.dynamic_shapes_kernel_specialization_strategy = "disabled", "lazy"

    def set_execution_context_allocation_strategy(self, strategy):
        self.allocation = strategy

    def create_runtime_cache(self):
        return RuntimeCache()

    def set_runtime_cache(self, cache):
        self.cache = cache
        return True


class RuntimeCache:
    def deserialize(self, blob):
        return blob == b"compiled"

    def serialize(self):
        return memoryview(b"compiled")


class Context:
    def __init__(self, fake, runtime_config):
        self.fake, self.config = fake, runtime_config
        self.shape: tuple[int, ...] = ()
        self.addresses: dict[str, int] = {}
        self.memory: int | None = None
        fake.contexts += 1

    def __del__(self):
        self.fake.contexts -= 1

    def set_input_shape(self, name, shape):
        self.fake.calls.append(("shape", name, shape))
        self.shape, self.memory = shape, None
        return "set_input_shape" not in self.fake.refuses

    def get_tensor_shape(self, name):
        n, _, h, w = self.shape
        scale = {"image": 1, "heatmaps": 2, "tags": 4}[name]
        channels = 3 if name == "image" else self.fake.joints
        return self.fake.shapes.get(name, (n, channels, h // scale, w // scale))

    def set_tensor_address(self, name, address):
        self.fake.calls.append(("address", name))
        self.addresses[name] = address
        return f"set_tensor_address {name}" not in self.fake.refuses

    def update_device_memory_size_for_shapes(self):
        assert self.shape
        return SCRATCH_BYTES

    def set_device_memory(self, address, size_bytes):
        assert self.config.allocation == "user managed"
        assert len(self.fake.driver.memory[address]) == size_bytes >= SCRATCH_BYTES
        self.fake.calls.append(("memory", size_bytes))
        self.memory = address

    def is_stream_capturable(self, stream):
        assert self.fake.rtx
        return self.fake.capturable and self.memory is not None

    def execute_async_v3(self, stream):
        self.fake.calls.append(("run", stream))
        assert self.shape
        assert self.addresses.keys() == self.fake.types.keys()
        if self.config is not None and self.config.allocation == "user managed":
            assert self.memory is not None, "no memory was given"
        elif self.fake.rtx:
            self.fake.driver.wait_for_device("an allocation of TensorRT-RTX's own")
        memory = {name: self.fake.driver.memory[address] for name, address in self.addresses.items()}

        def run():
            for name in ("heatmaps", "tags"):
                memory[name].view(np.float32)[:] = memory["image"].view(np.float16).astype(np.float32).mean()

        self.fake.driver.put(stream, run)
        return self.fake.runs


def written(path, **changes):
    """A plan's file for the stand-in, with its sidecar."""
    sidecar = Sidecar(
        flavor="tensorrt",
        version="10.0",
        gpu="Fake GPU",
        compute_capability="9.0",
        onnx="small.onnx",
        onnx_sha256="",
        plan_sha256=hashlib.sha256(b"plan").hexdigest(),
        shapes=SHAPES,
        spec=SPEC,
        built_at="",
    )
    write_plan(path, b"plan", replace(sidecar, **changes))
    return path
