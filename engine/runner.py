"""The interfaces of a network: Runner on the host, DeviceNetwork on a GPU. Protocols only; no runtime."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from core.spec import ModelSpec
from engine.shapes import Shape

if TYPE_CHECKING:
    from engine.device import DeviceArray, Stream

Images = NDArray[np.float32] | NDArray[np.float16]


class Heads(NamedTuple):
    """The network's outputs, float32: heatmaps (N, K, H/2, W/2) and tags (N, D * K, H/4, W/4), see ModelSpec."""

    heatmaps: NDArray[np.float32]
    tags: NDArray[np.float32]


class Runner(Protocol):
    """A loaded network on the host. Use it in a `with` block, or close it."""

    spec: ModelSpec
    engine: str  # "onnxruntime", "openvino", …: the `engine` of --stats

    def infer(self, images: Images) -> Heads:
        """One forward pass. images: (N, 3, H, W) in `spec.input_dtype`, H and W multiples of 64, C-contiguous.

        Blocks until the outputs are on the host; they are valid until the next call.
        """
        ...

    def close(self) -> None:
        """Release everything. May be called twice."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None: ...


class ParallelRunner(Runner, Protocol):
    """A Runner that also executes several passes concurrently, each on its share of the cores.

    Throughput is higher than with one pass at a time, where all cores synchronise at the end of every layer and wait
    for the slowest. The latency of each pass is longer.
    """

    concurrency: int  # concurrent passes that use all cores; 1: a second pass gains nothing
    precision: str  # of the arithmetic: "fp32", "fp16" or "bf16"

    def infer_into(self, images: Images, heads: Heads) -> None:
        """One pass, as `infer`, into `heads` (C-contiguous). Up to `concurrency` threads may call it at once."""


class DeviceNetwork(Protocol):
    """A network bound to one input shape, all its memory on the device."""

    @property
    def arrays(self) -> Mapping[str, DeviceArray]:
        """ "image" (N, 3, H, W), "heatmaps" (N, K, H/2, W/2), "tags" (N, D * K, H/4, W/4); fixed addresses."""
        ...

    def enqueue(self, stream: Stream) -> None:
        """Put one forward pass on `stream`, from and to `arrays`. Returns at once. Unless `capture_problem` gives a
        reason, it can be captured into a graph after the capturing thread has enqueued one pass on this stream."""

    def capture_problem(self, stream: Stream) -> str | None:
        """The reason, as text, why passes on `stream` cannot be captured into a graph; None if no reason is known."""
        ...

    def close(self) -> None:
        """Release everything. No pass may be pending."""


def tensors_of(spec: ModelSpec, shape: Shape) -> dict[str, tuple[tuple[int, ...], str]]:
    """Name -> (full shape, NumPy type) of a network's input and outputs for one (N, H, W)."""
    n, h, w = shape
    return {
        "image": ((n, 3, h, w), spec.input_dtype),
        "heatmaps": ((n, spec.num_joints, h // 2, w // 2), "float32"),
        "tags": ((n, spec.tag_channels, h // 4, w // 4), "float32"),
    }
