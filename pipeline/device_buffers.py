"""The memory of a DeviceStep: what a slot holds for frames of one layout, and what all slots share for one input shape.

Both stay while frames of other layouts come between, so that in steady state several cameras of different sizes, or a
folder of pictures, allocate nothing and capture no graph. What was used longest ago is freed beyond the limits here.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, Self

import numpy as np

from engine.device import Device, DeviceArray, Event, Graph, PinnedArray
from engine.runner import DeviceNetwork
from pipeline.letterbox import Letterbox
from pipeline.types import Layout, Picture

MAX_LAYOUTS = 32  # of a slot: each has a graph
MAX_LAYOUT_BYTES = 256 << 20  # of a slot's frames of all layouts: 41 of 1920x1080; pinned and device memory each
MIN_SHAPES, MAX_SHAPES = 4, 32  # input shapes with an open network; some runtimes keep each one's weights
FREE_SHARE = 0.5  # of the GPU's memory, which open networks beyond MIN_SHAPES must leave free


@dataclass(eq=False)
class FrameBuffers:
    """A slot's memory for the frames of one pass, which share a layout."""

    layout: Layout
    letterbox: Letterbox
    frames: DeviceArray  # as `frames_shape`
    pinned: PinnedArray | None  # likewise; None for Surfaces

    @classmethod
    def make(cls, device: Device, layout: Layout, letterbox: Letterbox, batch: int) -> Self:
        shape = frames_shape(layout, batch)
        frames = device.empty(shape, np.uint8)
        try:
            pinned = device.pinned(shape, np.uint8) if layout.colour is None else None
        except BaseException:
            device.free(frames)
            raise
        return cls(layout, letterbox, frames, pinned)

    def free(self, device: Device) -> None:
        """The frames may not be in use."""
        device.free(self.frames, *(() if self.pinned is None else (self.pinned,)))

    @property
    def kernel(self) -> str:
        """The name of the kernel that reads the frames."""
        return "preprocess" if self.layout.colour is None else "preprocess_nv12"


def frames_shape(layout: Layout, batch: int) -> tuple[int, ...]:
    """Of uint8: (batch, H, W, 3); for Surfaces (batch, H + ceil(H / 2), W rounded up to even)."""
    w, h = layout.wh
    return (batch, h, w, 3) if layout.colour is None else (batch, h + (h + 1) // 2, w + w % 2)


@dataclass(eq=False, kw_only=True)
class Slot:
    """A pass in process, and the buffers of its layout and of earlier ones."""

    uploaded: Event
    decoded: Event  # the end of the work that made the Surfaces
    done: Event
    people: PinnedArray  # a copy of the workspace's `packed`
    current: FrameBuffers | None = None  # of the pass
    kept: dict[Layout, FrameBuffers] = field(default_factory=dict)  # in the order of their last use, with `current`
    count: int = 0  # frames in the pass, at most the batch
    surfaces: Sequence[Picture] = ()  # those that are copied into `current`: they must live until that is done

    @property
    def buffers(self) -> FrameBuffers:
        assert self.current is not None, "nothing was prepared"
        return self.current

    def surplus(self, layout: Layout, batch: int) -> list[FrameBuffers]:
        """Take out what has to be freed before buffers of a new layout are made: those that were used longest ago."""
        surplus: list[FrameBuffers] = []
        size_bytes = prod(frames_shape(layout, batch)) + sum(prod(kept.frames.shape) for kept in self.kept.values())
        while self.kept and (len(self.kept) >= MAX_LAYOUTS or size_bytes > MAX_LAYOUT_BYTES):
            oldest = self.kept.pop(next(iter(self.kept)))
            size_bytes -= prod(oldest.frames.shape)
            surplus.append(oldest)
        return surplus


@dataclass(eq=False)
class OpenShape:
    """The network, the decode's workspace and the graphs for one input shape."""

    network: DeviceNetwork
    workspace: Any
    maps: tuple[DeviceArray, DeviceArray]  # the network's heatmaps and tags, (N, T, K, h, w)
    graphs: dict[FrameBuffers, Graph] = field(default_factory=dict)  # of whole frames
    can_capture: bool = True  # no capture has failed
    # The thread of the last first pass, in which kernels are compiled and plans chosen, for each preprocess kernel.
    # PyTorch chooses plans per thread and synchronises then, which a capture forbids: each thread needs a first pass
    # before it captures.
    warmed_by: dict[str, threading.Thread] = field(default_factory=dict)

    def drop_graph(self, device: Device, buffers: FrameBuffers) -> None:
        """Free the graph that reads these buffers. Of several threads that do this at once, one frees it."""
        graph = self.graphs.pop(buffers, None)
        if graph is not None:
            device.free(graph)

    def close(self, device: Device) -> None:
        """Free everything. No frame of this shape may be pending."""
        for buffers in list(self.graphs):
            self.drop_graph(device, buffers)
        self.network.close()
        self.workspace.close()
