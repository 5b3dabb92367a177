"""One pass of a network on the GPU, with host arrays in and out, for checks. The pipeline keeps its arrays there."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from engine.device import Device
from engine.runner import DeviceNetwork, Heads, Images
from engine.shapes import Shape


class BindableNetwork(DeviceNetwork, Protocol):
    def bind(self, shape: Shape) -> None: ...


def forward(network: BindableNetwork, device: Device, images: Images) -> Heads:
    """images: (N, 3, H, W) in the network's input type. Bind the shape, upload, run, download and wait."""
    n, _, h, w = images.shape
    network.bind((n, h, w))
    arrays = network.arrays
    with device.current():
        stream = device.stream()
        pinned = {name: device.pinned(array.shape, array.dtype) for name, array in arrays.items()}
        try:
            np.copyto(pinned["image"].array, images, casting="no")
            stream.upload(arrays["image"], pinned["image"].array)
            network.enqueue(stream)
            for name in ("heatmaps", "tags"):
                stream.download(pinned[name].array, arrays[name])
            stream.synchronize()
            return Heads(pinned["heatmaps"].array.copy(), pinned["tags"].array.copy())
        finally:
            device.free(*pinned.values(), stream)
