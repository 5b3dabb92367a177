"""DeviceStep: processes frames on a GPU; only people are copied back to the host.

    prepare   copy the frame into the slot's pinned memory and start its upload; a frame in
              device memory (a Surface) is copied there                                      (copy stream)
    infer     after the copy, one graph launch: preprocess, network, decode, download        (compute stream)
    finish    wait for the slot's event, read the people

A slot owns its frame, in pinned and in device memory, and its people in pinned memory. All slots share the network, the
decode's workspace and the people in device memory, since the compute stream runs one frame after another. Only `finish`
waits.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.errors import EngineError, as_engine_error
from core.spec import ModelSpec
from engine.device import Device, DeviceArray, Event, Graph, PinnedArray, exclusive
from engine.runner import DeviceNetwork
from pipeline.device_timing import time_in_turn, time_queued
from pipeline.letterbox import Letterbox
from pipeline.step import SLOTS, PassOptions, people_in_frame
from pipeline.types import Layout, People, Picture, on_host

logger = logging.getLogger(__name__)

MAX_SHAPES = 4  # input shapes with an open network and buffers; a folder of photographs has a few


@dataclass(eq=False)
class _Shape:
    """The network and buffers for frames of one input shape."""

    network: DeviceNetwork
    workspace: Any
    maps: tuple[DeviceArray, DeviceArray]  # the network's heatmaps and tags, (N, T, K, h, w)
    used: int = 0  # number of the last frame of this shape; the least recently used shape is closed
    # The thread of the last first pass, in which kernels are compiled and plans chosen. PyTorch chooses plans per
    # thread and synchronises then, which a capture forbids: each thread needs a first pass before it captures. By
    # whether the frames are Surfaces, which have a kernel of their own.
    warmed_by: dict[bool, threading.Thread] = field(default_factory=dict)

    def close(self) -> None:
        """Free both. No frame of this shape may be pending."""
        self.network.close()
        self.workspace.close()


@dataclass(eq=False)
class _Slot:
    uploaded: Event
    done: Event
    people: PinnedArray  # a copy of the workspace's `packed`
    decoded: Event  # the end of the work that made the slot's Surfaces
    layout: Layout | None = None
    letterbox: Letterbox | None = None
    count: int = 0  # frames prepared, at most the batch
    pinned: PinnedArray | None = None  # (batch, H, W, 3) uint8; None for Surfaces
    frames: DeviceArray | None = None  # likewise; of Surfaces (batch, H + ceil(H / 2), W rounded up to even)
    surfaces: Sequence[Picture] = ()  # those that are copied into `frames`: they must live until that is done
    graph: Graph | None = None
    graph_shape: _Shape | None = None  # the shape whose buffers the graph uses


class DeviceStep:
    """A FrameStep whose every stage between upload and people runs on the GPU.

    network_for: opens the network for an input (N, H, W); it may build a plan first. The step closes the networks.
    kernels: the module with the decode and preprocess kernels; by default `kernels.cuda`.
    graphs: launch each frame as one CUDA graph; may be changed between frames. If none can be captured, the step logs
        the reason and launches the kernels one by one.
    The step owns the device and closes it. Raises EngineError if the GPU lacks a feature.
    """

    slots = SLOTS
    concurrency = 1  # one pass keeps the GPU busy, since the next is queued in time

    def __init__(
        self,
        device: Device,
        network_for: Callable[[tuple[int, int, int]], DeviceNetwork],
        spec: ModelSpec,
        options: PassOptions,
        *,
        engine: str,
        about: str,
        graphs: bool = True,
        kernels: Any = None,
    ) -> None:
        if kernels is None:
            import kernels.cuda as kernels  # here: numba.cuda, and so a GPU, is not needed to import the pipeline
        self.spec, self.engine, self.about, self.precision = spec, engine, about, spec.precision
        self.device, self.network_for, self._kernels = device, network_for, kernels
        self._options, self.batch, self.graphs = options, options.batch, graphs
        self._shapes: dict[tuple[int, int, int], _Shape] = {}
        self._frames = 0
        self._graphs_change = threading.Lock()  # `prepare` and `infer` drop graphs, each from its own thread
        people, joints = options.decode.max_people, spec.num_joints
        with device.current():
            self._copy, self._compute = device.stream(), device.stream()
            self._slots = [
                _Slot(
                    device.event(),
                    device.event(),
                    device.pinned((kernels.packed_size(self.batch, people, joints),), np.float32),
                    device.event(),
                )
                for _ in range(self.slots)
            ]

    def prepare(self, slot: int, pictures: Sequence[Picture]) -> None:
        buffers, layout = self._slots[slot], Layout.of(pictures[0])
        with self.device.current():
            if buffers.layout != layout:
                self._change_layout(buffers, layout)
            assert buffers.frames is not None
            buffers.count = len(pictures)
            if buffers.pinned is None:
                self._copy_surfaces(buffers, pictures)
            else:
                for pinned, picture in zip(buffers.pinned.array, pictures, strict=False):
                    np.copyto(pinned, on_host(picture))
                self._copy.upload(buffers.frames, buffers.pinned.array)
            buffers.uploaded.record(self._copy)

    def infer(self, slot: int) -> None:
        buffers = self._slots[slot]
        assert buffers.letterbox is not None
        with self.device.current():
            shape = self._shape((self.batch * self._options.images_per_frame, *buffers.letterbox.input_hw))
            self._compute.wait_for(buffers.uploaded)
            if self.graphs and buffers.graph is not None and buffers.graph_shape is shape:
                buffers.graph.launch(self._compute)
            elif shape.warmed_by.get(buffers.pinned is None) is not threading.current_thread():
                with exclusive():
                    self._enqueue(buffers, shape)
                shape.warmed_by[buffers.pinned is None] = threading.current_thread()
            elif (graph := self._slot_graph(buffers, shape)) is not None:
                graph.launch(self._compute)
            else:
                self._enqueue(buffers, shape)
            buffers.done.record(self._compute)

    def infer_concurrent(self, slot: int) -> None:
        self.infer(slot)

    def finish(self, slot: int) -> list[People]:
        buffers = self._slots[slot]
        assert buffers.letterbox is not None
        with self.device.current():
            buffers.done.wait()
        shape = self.batch, self._options.decode.max_people, self.spec.num_joints
        keypoints, scores, counts = self._kernels.unpack_people(buffers.people.array, shape)
        return [
            people_in_frame(keypoints[n, :found], scores[n, :found].copy(), buffers.letterbox)
            for n, found in enumerate(counts[: buffers.count].tolist())
        ]

    def drain(self) -> None:
        """Wait for the frames of a caller that stopped early, before their slots are written again."""
        with self.device.current():
            try:
                self._copy.synchronize()
                self._compute.synchronize()
            except EngineError as error:  # the frame that failed reports it
                logger.warning("%s", error)

    def input_shape(self, frame_wh: tuple[int, int]) -> tuple[int, int, int]:
        return self._options.input_shape(frame_wh, self.spec)

    def warm_up(self, frame_wh: tuple[int, int]) -> None:
        blank = np.zeros((frame_wh[1], frame_wh[0], 3), np.uint8)
        with as_engine_error("the first frame failed"):
            for slot in (*range(self.slots), 0):  # the first pass compiles; the next of each slot captures its graph
                self.prepare(slot, [blank] * self.batch)
                self.infer(slot)
                self.finish(slot)

    def time_engine(self, frame_wh: tuple[int, int], *, seconds: float, concurrent: bool = False) -> list[float]:
        with self.device.current():
            shape = self._shape(self.input_shape(frame_wh))
            return self._time_queued(lambda: shape.network.enqueue(self._compute), shape, seconds)

    def time_frame(self, frame_wh: tuple[int, int], *, seconds: float) -> list[float]:
        """Milliseconds of a frame's whole work on the compute stream, preprocess to download, measured as the engine
        alone is.
        """
        self.prepare(0, [np.zeros((frame_wh[1], frame_wh[0], 3), np.uint8)] * self.batch)
        self.infer(0)
        self.finish(0)
        with self.device.current():
            shape = self._shape(self.input_shape(frame_wh))
            return self._time_queued(lambda: self._enqueue(self._slots[0], shape), shape, seconds)

    @property
    def bytes_back(self) -> int:
        """What a pass copies to the host: the people of its frames."""
        return int(self._slots[0].people.array.nbytes)

    def _time_queued(self, enqueue: Callable[[], None], shape: _Shape, seconds: float) -> list[float]:
        launch, graphs = self._repeatable(enqueue, shape)
        times_ms = time_queued(launch, self.device, self._compute, seconds=seconds)
        self.device.free(*graphs)
        return times_ms

    def time_parts(self, image: NDArray[np.uint8], *, seconds: float) -> dict[str, list[float]]:
        """Device milliseconds of the parts of a frame, launched as one graph each: upload, preprocess, infer, group and
        download. At least three passes, repeated for about `seconds`.
        """
        self.prepare(0, [image] * self.batch)
        self.infer(0)
        self.finish(0)
        buffers, shape = self._slots[0], self._shape(self.input_shape((image.shape[1], image.shape[0])))
        pinned, frame = buffers.pinned, buffers.frames
        assert pinned is not None
        assert frame is not None
        with self.device.current():
            work = {"upload": lambda: self._compute.upload(frame, pinned.array), **self._work(buffers, shape)}
            graphs: list[Graph] = []
            for name, enqueue in work.items():
                work[name], made = self._repeatable(enqueue, shape)
                graphs += made
            times_ms = time_in_turn(work, self.device, self._compute, seconds=seconds)
            self.device.free(*graphs)
        return times_ms

    def replace_networks(self, network_for: Callable[[tuple[int, int, int]], DeviceNetwork]) -> None:
        """Close the open networks and open new ones by this function. No frame may be pending."""
        with self.device.current(), exclusive():
            while self._shapes:
                self._forget_oldest()
        self.network_for = network_for

    def close(self) -> None:
        """Wait for the device, then free everything. May be called twice."""
        if not self._slots:
            return
        self._slots = []
        with self.device.current():
            try:
                self._compute.synchronize()
            except EngineError as error:  # reported by its frame; closing must go on
                logger.warning("%s", error)
            with exclusive():
                for shape in self._shapes.values():
                    shape.close()
            self._shapes.clear()
        self.device.close()

    def _change_layout(self, buffers: _Slot, layout: Layout) -> None:
        """Allocate buffers for frames of another layout. The slot is free, so the old buffers are not in use."""
        self._drop_graph(buffers)
        self.device.free(*(thing for thing in (buffers.frames, buffers.pinned) if thing is not None))
        buffers.pinned = buffers.frames = buffers.layout = None
        buffers.surfaces = ()
        buffers.letterbox = self._options.letterbox(layout.wh, self.spec)
        w, h = layout.wh
        if layout.colour is None:
            buffers.pinned = self.device.pinned((self.batch, h, w, 3), np.uint8)
            buffers.frames = self.device.empty((self.batch, h, w, 3), np.uint8)
        else:
            buffers.frames = self.device.empty((self.batch, h + (h + 1) // 2, w + w % 2), np.uint8)
        buffers.layout = layout

    def _copy_surfaces(self, buffers: _Slot, surfaces: Sequence[Picture]) -> None:
        """Copy decoded pictures into the slot, on the copy stream: a graph needs fixed addresses."""
        assert buffers.frames is not None
        rows = buffers.frames.shape[1]
        buffers.surfaces = tuple(surfaces)
        buffers.decoded.record(None)
        self._copy.wait_for(buffers.decoded)
        for n, surface in enumerate(surfaces):
            assert not isinstance(surface, np.ndarray)
            self._copy.copy_rows(buffers.frames, n * rows, surface.luma)
            self._copy.copy_rows(buffers.frames, n * rows + surface.luma.count, surface.chroma)

    def _shape(self, nhw: tuple[int, int, int]) -> _Shape:
        self._frames += 1
        if nhw not in self._shapes:
            with exclusive():
                if len(self._shapes) >= MAX_SHAPES:
                    self._forget_oldest()
                self._shapes[nhw] = self._open_shape(nhw)
        self._shapes[nhw].used = self._frames
        return self._shapes[nhw]

    def _open_shape(self, nhw: tuple[int, int, int]) -> _Shape:
        network = self.network_for(nhw)
        maps = self._of_each_frame(network)
        try:
            workspace = self._kernels.Workspace(
                maps[0].shape, self._options.decode, dtype=maps[0].dtype, tag_dims=self.spec.tag_dims
            )
            return _Shape(network, workspace, maps)
        except BaseException:
            network.close()
            raise

    def _of_each_frame(self, network: DeviceNetwork) -> tuple[DeviceArray, DeviceArray]:
        """The network's outputs (N * T, ...) as (N, T, ...), T 2 with flip."""
        heatmaps, tags = (
            array.reshaped((self.batch, self._options.images_per_frame, *array.shape[1:]))
            for array in (network.arrays["heatmaps"], network.arrays["tags"])
        )
        return heatmaps, tags

    def _forget_oldest(self) -> None:
        oldest = min(self._shapes, key=lambda nhw: self._shapes[nhw].used)
        shape = self._shapes.pop(oldest)
        self._compute.synchronize()  # a frame of this shape may still be pending
        for buffers in self._slots:
            if buffers.graph_shape is shape:
                self._drop_graph(buffers)
        shape.close()

    def _drop_graph(self, buffers: _Slot) -> None:
        with self._graphs_change:
            graph, buffers.graph, buffers.graph_shape = buffers.graph, None, None
        if graph is not None:  # without the lock: freeing waits for `exclusive`, and its holder may come here
            self.device.free(graph)

    def _slot_graph(self, buffers: _Slot, shape: _Shape) -> Graph | None:
        """A graph of the slot's whole frame, for its next frames too; None without graphs or if capturing fails."""
        if not self.graphs:
            return None
        self._drop_graph(buffers)
        graph = self._captured(lambda: self._enqueue(buffers, shape), shape)
        if graph is None:
            self.graphs = False
        else:
            buffers.graph, buffers.graph_shape = graph, shape
        return graph

    def _captured(self, enqueue: Callable[[], None], shape: _Shape) -> Graph | None:
        """A graph of what `enqueue` enqueues; None, and a warning, if it cannot be captured."""
        try:
            if (problem := shape.network.capture_problem(self._compute)) is not None:
                raise EngineError(problem)
            return self.device.own(self._compute.capture(enqueue))
        except EngineError as error:
            logger.warning("frames are launched kernel by kernel, which is slower: %s", error)
            return None

    def _repeatable(self, enqueue: Callable[[], None], shape: _Shape) -> tuple[Callable[[], None], list[Graph]]:
        """Run `enqueue` once. Returns a function that repeats it at little cost for the host, and the graph to free."""
        with exclusive():
            enqueue()
        graph = self._captured(enqueue, shape) if self.graphs else None
        if graph is None:
            return enqueue, []
        return lambda: graph.launch(self._compute), [graph]

    def _enqueue(self, buffers: _Slot, shape: _Shape) -> None:
        """Enqueue all parts of the slot's frame on the compute stream, from preprocess to download."""
        for enqueue in self._work(buffers, shape).values():
            enqueue()

    def _work(self, buffers: _Slot, shape: _Shape) -> dict[str, Callable[[], None]]:
        """The parts of the slot's frame by name, in order; each enqueues and returns."""
        arrays, letterbox, layout, stream = shape.network.arrays, buffers.letterbox, buffers.layout, self._compute
        assert letterbox is not None
        assert layout is not None
        kernel = self._kernels.preprocess
        if layout.colour is not None:
            kernel = partial(self._kernels.preprocess_nv12, frame_wh=layout.wh, colour=layout.colour)

        def preprocess() -> None:
            kernel(
                buffers.frames,
                arrays["image"],
                scale=letterbox.scale,
                center=letterbox.center,
                mean=self.spec.mean,
                std=self.spec.std,
                mirror=self._options.flip,
                stream=stream.handle,
            )

        def group() -> None:
            self._kernels.decode(*shape.maps, workspace=shape.workspace, stream=stream.handle)

        def download() -> None:
            stream.download(buffers.people.array, shape.workspace.packed)

        return {
            "preprocess": preprocess,
            "infer": lambda: shape.network.enqueue(stream),
            "group": group,
            "download": download,
        }
