"""The baseline of the whole pipeline: PyTorch launched from Python, its maps downloaded, everything else on the host.

Half precision, channels last and batch norm folded, as in the project's own runners. The differences from them are
TensorRT, the CUDA graph, and that here 4 to 20 MB of maps are downloaded for every frame instead of its people.
"""

from __future__ import annotations

from typing import Self

import torch

from benchmarks.drawn_maps import DrawnRunner
from core.spec import ModelSpec
from engine.runner import Heads, Images, Runner
from kernels.options import DecodeOptions
from pipeline.model_files import torch_model
from pipeline.step import HostStep, PassOptions


class HostTorch:
    """A Runner. model: a name of the zoo or a checkpoint; spec: that model's; device: "cuda" or "cpu"."""

    engine = "torch"

    def __init__(self, model: str, spec: ModelSpec, device: str = "cuda") -> None:
        self.spec = spec
        self._device = torch.device(device)
        torch.backends.cudnn.benchmark = True
        graph, _ = torch_model(model, fp16=spec.precision == "fp16")
        self._graph: torch.nn.Module | None = graph.to(device=self._device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # stubs lack it

    @torch.inference_mode()
    def infer(self, images: Images) -> Heads:
        tensor = torch.from_numpy(images).to(self._device).contiguous(memory_format=torch.channels_last)
        assert self._graph is not None, "closed"
        heatmaps, tags = self._graph(tensor)
        return Heads(heatmaps.cpu().numpy(), tags.cpu().numpy())

    def close(self) -> None:
        self._graph = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def host_step(
    model: str,
    spec: ModelSpec,
    options: DecodeOptions,
    device: str = "cuda",
    people: int | None = None,
    *,
    flip: bool = False,
) -> HostStep:
    """The baseline as a frame step, for a PosePipeline. people: decode a drawn crowd of this size instead."""
    passes = PassOptions(decode=options, flip=flip)
    runner: Runner = HostTorch(model, spec, device)
    if people is not None:
        runner = DrawnRunner(runner, people, passes.images_per_frame)
    return HostStep(lambda shape: runner, spec, passes, engine="torch", on_close=runner.close)
