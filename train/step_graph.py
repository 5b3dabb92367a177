"""A training step recorded as a CUDA graph: its thousand kernels are launched at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor

from train.mixture import Batch


class StepGraph:
    """The kernels of `step(batch)`, recorded; run it with `replay`.

    step: must launch the same kernels each time, wait for nothing, and use no gradients of earlier steps. It is not
    run here. Record on a stream of its own, on which the step has run before: the libraries choose kernels then.
    Raises RuntimeError if the step cannot be recorded.
    """

    def __init__(self, step: Callable[[Batch], dict[str, Tensor]], batch: Batch) -> None:
        self._batch = cast(Batch, {name: _copied(value) for name, value in batch.items()})
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, stream=torch.cuda.current_stream()):
            self._losses = step(self._batch)

    def replay(self, batch: Batch) -> dict[str, Tensor]:
        """Run the step on this batch. The next replay overwrites the result."""
        for name, value in batch.items():
            for ours, theirs in zip(_listed(self._batch[name]), _listed(value), strict=True):  # type: ignore[literal-required]  # a Batch's names
                if ours.is_cuda:  # the numbers of the sets are on the host, and the same in every batch
                    ours.copy_(theirs, non_blocking=True)
        self._graph.replay()
        return self._losses


def _copied(value: object) -> object:
    if isinstance(value, list):
        return [tensor.clone() for tensor in value]
    assert isinstance(value, Tensor)
    return value.clone()


def _listed(value: object) -> list[Tensor]:
    return value if isinstance(value, list) else [value]  # type: ignore[list-item]  # a Batch holds tensors
