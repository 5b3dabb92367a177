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


@pytest.mark.gpu
def test_a_graph_keeps_its_memory_while_torch_gives_back_what_it_does_not_use():
    """As it does after each search for cuDNN's plans: another shape's, another thread's, another pipeline's."""
    from engine.device import Device
    from export.head import Aggregated
    from export.hrnet import HigherHRNet

    torch.manual_seed(1)
    graph = Aggregated(HigherHRNet(8)).eval().half()
    with Device() as device, device.current():
        stream = device.stream()
        network = TorchNetwork(graph, ModelSpec(name="narrow", precision="fp16"), (1, 256, 256), device)
        image = device.pinned((1, 3, 256, 256), np.float16)
        image.array[:] = np.random.default_rng(1).normal(size=image.array.shape)
        stream.upload(network.arrays["image"], image.array)
        heatmaps = device.pinned(network.arrays["heatmaps"].shape, np.float32)
        network.enqueue(stream)
        captured = device.own(stream.capture(lambda: network.enqueue(stream)))
        found = []
        for _ in range(3):
            torch.cuda.empty_cache()
            others = torch.full((1 << 28,), float("nan"), device="cuda")  # 1 GiB, where the graph's memory was
            captured.launch(stream)
            stream.download(heatmaps.array, network.arrays["heatmaps"])
            stream.synchronize()
            found.append(heatmaps.array.copy())
            assert bool(torch.isnan(others).all()), "the graph wrote to memory of others"
            del others
        np.testing.assert_array_equal(found[1], found[0])
        np.testing.assert_array_equal(found[2], found[0])
        network.close()
