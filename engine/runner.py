"""The Runner protocol: a network as the pipeline sees it. Knows tensors, not people."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

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
