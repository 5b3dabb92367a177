"""The network in PyTorch on a GPU, half precision, channels last: TensorRT's baseline and fallback.

It runs on the caller's stream and reads and writes memory of `engine.device`, so that a frame step can capture it into
the same CUDA graph as the kernels. Before a capture, run one pass on the same stream in the same thread: torch chooses
cuDNN's plans in the first pass of each thread, which waits for the device and so cannot be captured.

A graph keeps the addresses of the memory between the layers, which torch considers free once it is captured. Outside of
a pool of its own torch would give that memory back to the driver, as it does each time it has chosen a plan, and the
next launch would write to memory that no longer exists, or that is somebody else's.
"""

from __future__ import annotations

from contextlib import ExitStack
from types import ModuleType
from typing import TYPE_CHECKING

from core.errors import EngineError
from core.spec import ModelSpec
from engine.device import Device, DeviceArray, Stream
from engine.runner import tensors_of
from engine.shapes import Shape

if TYPE_CHECKING:
    from torch import nn


class TorchNetwork:
    """A module bound to one input shape; a DeviceNetwork of the frame step.

    graph: a torch module, image -> (heatmaps, tags), in the precision of `spec`; it is moved to the GPU.
    arrays: "image", "heatmaps", "tags" as `tensors_of` says. The device's context must be current in every call.
    Raises EngineError where torch cannot use the GPU.
    """

    engine = "torch"

    def __init__(self, graph: nn.Module, spec: ModelSpec, shape: Shape, device: Device) -> None:
        torch = load_torch()
        self.spec = spec
        self._torch, self._device = torch, device
        torch.backends.cudnn.benchmark = True  # the shape never changes, so the search runs once, in the first pass
        self._gpu = gpu = torch.device("cuda", device.index)
        self._graph = graph.to(device=gpu, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]  # stubs lack it
        self.arrays: dict[str, DeviceArray] = {
            name: device.empty(*tensor) for name, tensor in tensors_of(spec, shape).items()
        }
        with torch.cuda.device(gpu):
            self._captured_memory = torch.cuda.MemPool()
        self._tensors = {name: torch.as_tensor(array, device=gpu) for name, array in self.arrays.items()}

    def enqueue(self, stream: Stream) -> None:
        """Put one forward pass on `stream`. Returns at once; may be captured after one pass on the same stream."""
        torch, tensors = self._torch, self._tensors
        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode())
            stack.enter_context(torch.cuda.stream(torch.cuda.ExternalStream(stream.handle, self._gpu)))
            if torch.cuda.is_current_stream_capturing():
                stack.enter_context(torch.cuda.use_mem_pool(self._captured_memory, self._gpu))
            image = tensors["image"].contiguous(memory_format=torch.channels_last)
            heatmaps, tags = self._graph(image)
            tensors["heatmaps"].copy_(heatmaps)
            tensors["tags"].copy_(tags)

    def capture_problem(self, stream: Stream) -> str | None:
        return None  # torch raises during the capture

    def close(self) -> None:
        """Release the memory; graphs of it may not be launched any more. May be called twice."""
        self._device.free(*self.arrays.values())
        self.arrays, self._tensors, self._graph, self._captured_memory = {}, {}, None, None


def load_torch() -> ModuleType:
    """The module `torch`. Raises EngineError where it is not installed or cannot use the GPU."""
    try:
        import torch
    except ImportError as error:
        raise EngineError(f"torch cannot be loaded ({error}); pip install torch, a CUDA build") from error
    if not torch.cuda.is_available():
        raise EngineError(
            f"torch {torch.__version__} finds no GPU; expected a CUDA build and a driver: pip install torch"
        )
    return torch
