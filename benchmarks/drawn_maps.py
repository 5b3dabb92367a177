"""Networks whose outputs are replaced by drawn crowds, since random weights would give the decode an arbitrary load.

The network runs as usual and writes into its own memory; a drawn crowd of the requested size is decoded instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

import numpy as np

from core.spec import ModelSpec
from engine.device import Device, DeviceArray, Stream
from engine.runner import DeviceNetwork, Heads, Images, Runner
from tests.kernels.cuda.crowds import draw_crowd


def draw(people: int, shape: tuple[int, ...], images_per_frame: int = 1) -> Heads:
    """Heatmaps of this shape (N, K, h, w), and their tags: a different crowd in each frame.

    images_per_frame: 2 with flip: each odd image is the mirrored one before it, N is even.
    """
    n, K, h, w = shape
    frames = range(n // images_per_frame)
    drawn = [draw_crowd(np.random.default_rng(seed), people, (h, w), K=K, T=images_per_frame) for seed in frames]
    heatmaps, tags = (np.concatenate(maps) for maps in zip(*drawn, strict=True))
    return Heads(heatmaps, tags)


class DrawnNetwork:
    """A DeviceNetwork that runs another one for its time, and gives drawn outputs. The context must be current."""

    def __init__(self, network: DeviceNetwork, device: Device, people: int, images_per_frame: int = 1) -> None:
        self._network, self._device = network, device
        heads = draw(people, network.arrays["heatmaps"].shape, images_per_frame)
        self._maps = {"heatmaps": device.empty(heads.heatmaps.shape, np.float32)}
        self._maps["tags"] = device.empty(heads.tags.shape, np.float32)
        stream = device.stream()
        for name, values in heads._asdict().items():
            pinned = device.pinned(values.shape, np.float32)
            pinned.array[:] = values
            stream.upload(self._maps[name], pinned.array)
            stream.synchronize()
            device.free(pinned)
        device.free(stream)

    @property
    def arrays(self) -> Mapping[str, DeviceArray]:
        return {"image": self._network.arrays["image"], **self._maps}

    def enqueue(self, stream: Stream) -> None:
        self._network.enqueue(stream)

    def capture_problem(self, stream: Stream) -> str | None:
        return self._network.capture_problem(stream)

    def close(self) -> None:
        self._device.free(*self._maps.values())
        self._network.close()


class DrawnRunner:
    """The same for a Runner."""

    def __init__(self, runner: Runner, people: int, images_per_frame: int = 1) -> None:
        self._runner, self._people, self._images_per_frame = runner, people, images_per_frame
        self.spec: ModelSpec = runner.spec
        self.engine = runner.engine
        self._drawn: Heads | None = None

    def infer(self, images: Images) -> Heads:
        heads = self._runner.infer(images)
        if self._drawn is None or self._drawn.heatmaps.shape != heads.heatmaps.shape:
            self._drawn = draw(self._people, heads.heatmaps.shape, self._images_per_frame)
        return self._drawn

    def close(self) -> None:
        self._runner.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
