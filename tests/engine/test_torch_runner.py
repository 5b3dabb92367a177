"""engine/torch_runner.py: what it says without a GPU, and on one that it gives what PyTorch gives on the CPU."""

from __future__ import annotations

import numpy as np
import pytest

from core.errors import EngineError
from core.spec import ModelSpec
from engine.torch_runner import TorchNetwork

torch = pytest.importorskip("torch", reason="torch comes with the export extra")


def test_without_a_gpu_the_remedy_is_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(EngineError, match=r"finds no GPU; expected a CUDA build and a driver"):
        TorchNetwork(torch.nn.Identity(), ModelSpec(name="x"), (1, 64, 64), device=None)  # type: ignore[arg-type]


@pytest.mark.gpu
@pytest.mark.parametrize("captured", [False, True], ids=["plain", "graph"])
def test_on_a_gpu_it_gives_what_the_cpu_gives(captured):
    from engine.device import Device
    from export.head import Aggregated
    from export.hrnet import HigherHRNet
    from export.to_onnx import fold_batch_norm

    torch.manual_seed(1)
    graph = fold_batch_norm(Aggregated(HigherHRNet(8)).eval())
    images = np.random.default_rng(1).normal(size=(1, 3, 64, 128)).astype(np.float16)
    with torch.inference_mode():
        expected = [output.numpy() for output in graph(torch.from_numpy(images).float())]
    spec = ModelSpec(name="narrow", precision="fp16")
    with Device() as device, device.current():
        stream = device.stream()
        network = TorchNetwork(graph.half(), spec, (1, 64, 128), device)
        pinned = device.pinned(images.shape, np.float16)
        pinned.array[:] = images
        stream.upload(network.arrays["image"], pinned.array)
        network.enqueue(stream)
        if captured:
            device.own(stream.capture(lambda: network.enqueue(stream))).launch(stream)
        outputs = [device.pinned(network.arrays[name].shape, np.float32) for name in ("heatmaps", "tags")]
        for output, name in zip(outputs, ("heatmaps", "tags"), strict=True):
            stream.download(output.array, network.arrays[name])
        stream.synchronize()
        for output, wanted in zip(outputs, expected, strict=True):
            np.testing.assert_allclose(output.array, wanted, atol=2e-2 * np.abs(wanted).max())
        network.close()
