"""The baseline of the whole pipeline: PyTorch launched from Python, its maps fetched, everything else on the host.

Half precision, channels last and batch-norm folded, as the project's own runners have it: the difference to them is
TensorRT, the graph, and that here 4 to 20 MB of maps come back for every frame instead of its people.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import torch
from numpy.typing import NDArray

from engine.runner import Heads
from engine.spec import ModelSpec
from export.checkpoint import build_from_checkpoint
from export.model import Aggregated
from export.to_onnx import fold_batch_norm
from kernels.options import DecodeOptions
from pipeline.step import HostStep


class HostTorch:
    """A Runner. weights: a checkpoint; spec: the model's, which gives the precision; device: "cuda" or "cpu"."""

    engine = "torch"

    def __init__(self, weights: Path, spec: ModelSpec, device: str = "cuda") -> None:
        self.spec = spec
        self._device = torch.device(device)
        torch.backends.cudnn.benchmark = True
        graph = fold_batch_norm(Aggregated(build_from_checkpoint(weights)).eval())
        graph = graph.half() if spec.precision == "fp16" else graph
        self._graph: Any = graph.to(device=self._device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # stubs lack it

    @torch.inference_mode()
    def infer(self, images: NDArray[Any]) -> Heads:
        tensor = torch.from_numpy(images).to(self._device).contiguous(memory_format=torch.channels_last)
        heatmaps, tags = self._graph(tensor)
        return Heads(heatmaps.cpu().numpy(), tags.cpu().numpy())

    def close(self) -> None:
        self._graph = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def host_step(weights: Path, spec: ModelSpec, options: DecodeOptions, device: str = "cuda") -> HostStep:
    """The baseline as a frame step, for a PosePipeline."""
    runner = HostTorch(weights, spec, device)
    return HostStep(lambda shape: runner, spec, engine="torch", options=options, on_close=runner.close)
