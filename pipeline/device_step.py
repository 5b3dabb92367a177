"""DeviceStep: processes frames on a GPU; only people are copied back to the host.

    prepare   copy the frame into the slot's pinned memory and start its upload; a frame in
              device memory (a Surface) is copied there                                      (copy stream)
    infer     after the copy, one graph launch: preprocess, network, decode, download        (compute stream)
    finish    wait for the slot's event, read the people

A slot owns its frame, in pinned and in device memory, and its people in pinned memory. All slots share the network, the
decode's workspace and the people in device memory, since the compute stream runs one frame after another. Only `finish`
waits. `device_buffers.py` says how much of this is kept for frames of other sizes.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.errors import EngineError, as_engine_error
from core.spec import ModelSpec
from engine.device import Device, DeviceArray, Graph, exclusive
from engine.runner import DeviceNetwork
from pipeline.device_buffers import FREE_SHARE, MAX_SHAPES, MIN_SHAPES, FrameBuffers, OpenShape, Slot
from pipeline.device_timing import time_in_turn, time_queued
from pipeline.step import SLOTS, PassOptions, people_in_frame
from pipeline.types import Layout, People, Picture, on_host

logger = logging.getLogger(__name__)


class DeviceStep:
    """A FrameStep whose every stage between upload and people runs on the GPU.

    network_for: opens the network for an input (N, H, W); it may build a plan first. The step closes the networks.
    kernels: the module with the decode and preprocess kernels; by default `kernels.cuda`.
    graphs: launch each frame as one CUDA graph; may be changed between frames. For an input shape where none can be
        captured, the step logs the reason and launches the kernels one by one.
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
        self._shapes: OrderedDict[tuple[int, int, int], OpenShape] = OrderedDict()  # in the order of their last use
        people, joints = options.decode.max_people, spec.num_joints
        with device.current():
            self._copy, self._compute = device.stream(), device.stream()
            self._slots = [
                Slot(
                    uploaded=device.event(),
                    decoded=device.event(),
                    done=device.event(),
                    people=device.pinned((kernels.packed_size(self.batch, people, joints),), np.float32),
                )
                for _ in range(self.slots)
            ]

    def prepare(self, slot: int, pictures: Sequence[Picture]) -> None:
        state = self._slots[slot]
        with self.device.current():
            buffers = self._use_layout(state, Layout.of(pictures[0]))
            state.count, state.surfaces = len(pictures), ()
            if buffers.pinned is None:
                self._copy_surfaces(state, pictures)
            else:
                for pinned, picture in zip(buffers.pinned.array, pictures, strict=False):
                    np.copyto(pinned, on_host(picture))
                self._copy.upload(buffers.frames, buffers.pinned.array)
            state.uploaded.record(self._copy)

    def infer(self, slot: int) -> None:
        state, this_thread = self._slots[slot], threading.current_thread()
        buffers = state.buffers
        with self.device.current():
            shape = self._shape(self._shape_of(buffers))
            self._compute.wait_for(state.uploaded)
            if self.graphs and (graph := shape.graphs.get(buffers)) is not None:
                graph.launch(self._compute)
            elif shape.warmed_by.get(buffers.kernel) is not this_thread:
                with exclusive():
                    self._enqueue(state, shape)
                shape.warmed_by[buffers.kernel] = this_thread
            elif (graph := self._captured(lambda: self._enqueue(state, shape), shape)) is not None:
                shape.graphs[buffers] = graph
                graph.launch(self._compute)
            else:
                self._enqueue(state, shape)
            state.done.record(self._compute)

    def infer_concurrent(self, slot: int) -> None:
        self.infer(slot)

    def finish(self, slot: int) -> list[People]:
        state = self._slots[slot]
        with self.device.current():
            state.done.wait()
        shape = self.batch, self._options.decode.max_people, self.spec.num_joints
        keypoints, scores, counts = self._kernels.unpack_people(state.people.array, shape)
        return [
            people_in_frame(keypoints[n, :found], scores[n, :found].copy(), state.buffers.letterbox)
            for n, found in enumerate(counts[: state.count].tolist())
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

    def _time_queued(self, enqueue: Callable[[], None], shape: OpenShape, seconds: float) -> list[float]:
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
        buffers, shape = self._slots[0].buffers, self._shape(self.input_shape((image.shape[1], image.shape[0])))
        pinned, frames = buffers.pinned, buffers.frames
        assert pinned is not None
        with self.device.current():
            work = {"upload": lambda: self._compute.upload(frames, pinned.array), **self._work(self._slots[0], shape)}
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
                    shape.close(self.device)
            self._shapes.clear()
        self.device.close()

    def _use_layout(self, slot: Slot, layout: Layout) -> FrameBuffers:
        """The slot's buffers for frames of this layout. The slot is free, so that none of its buffers is in use."""
        slot.current = slot.kept.pop(layout, None)
        if slot.current is None:
            for buffers in slot.surplus(layout, self.batch):
                shape = self._shapes.get(self._shape_of(buffers))
                if shape is not None:
                    shape.drop_graph(self.device, buffers)
                buffers.free(self.device)
            letterbox = self._options.letterbox(layout.wh, self.spec)
            slot.current = FrameBuffers.make(self.device, layout, letterbox, self.batch)
        slot.kept[layout] = slot.current
        return slot.current

    def _copy_surfaces(self, slot: Slot, surfaces: Sequence[Picture]) -> None:
        """Copy decoded pictures into the slot, on the copy stream: a graph needs fixed addresses."""
        frames = slot.buffers.frames
        rows = frames.shape[1]
        slot.surfaces = tuple(surfaces)
        slot.decoded.record(None)
        self._copy.wait_for(slot.decoded)
        for n, surface in enumerate(surfaces):
            assert not isinstance(surface, np.ndarray)
            self._copy.copy_rows(frames, n * rows, surface.luma)
            self._copy.copy_rows(frames, n * rows + surface.luma.count, surface.chroma)

    def _shape_of(self, buffers: FrameBuffers) -> tuple[int, int, int]:
        """N, H and W of the input that these frames become."""
        return self.batch * self._options.images_per_frame, *buffers.letterbox.input_hw

    def _shape(self, nhw: tuple[int, int, int]) -> OpenShape:
        if nhw not in self._shapes:
            with exclusive():
                while len(self._shapes) >= MAX_SHAPES or self._too_full():
                    self._forget_oldest()
                self._shapes[nhw] = self._open_shape(nhw)
        self._shapes.move_to_end(nhw)
        return self._shapes[nhw]

    def _too_full(self) -> bool:
        """Whether a network must be closed before another is opened, since the GPU's memory gets scarce."""
        return len(self._shapes) >= MIN_SHAPES and self.device.free_share() < FREE_SHARE

    def _open_shape(self, nhw: tuple[int, int, int]) -> OpenShape:
        network = self.network_for(nhw)
        maps = self._of_each_frame(network)
        try:
            workspace = self._kernels.Workspace(
                maps[0].shape, self._options.decode, dtype=maps[0].dtype, tag_dims=self.spec.tag_dims
            )
            return OpenShape(network, workspace, maps)
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
        _, shape = self._shapes.popitem(last=False)
        self._compute.synchronize()  # a frame of this shape may still be pending
        shape.close(self.device)

    def _captured(self, enqueue: Callable[[], None], shape: OpenShape) -> Graph | None:
        """A graph of what `enqueue` enqueues; None without graphs, or if the shape's work cannot be captured.

        The first failure is logged; after it, nothing of this shape is captured.
        """
        if not (self.graphs and shape.can_capture):
            return None
        try:
            if (problem := shape.network.capture_problem(self._compute)) is not None:
                raise EngineError(problem)
            return self.device.own(self._compute.capture(enqueue))
        except EngineError as error:
            shape.can_capture = False
            h, w = shape.network.arrays["image"].shape[2:]
            logger.warning("inputs of %dx%d are launched kernel by kernel, which is slower: %s", h, w, error)
            return None

    def _repeatable(self, enqueue: Callable[[], None], shape: OpenShape) -> tuple[Callable[[], None], list[Graph]]:
        """Run `enqueue` once. Returns a function that repeats it at little cost for the host, and the graph to free."""
        with exclusive():
            enqueue()
        graph = self._captured(enqueue, shape)
        if graph is None:
            return enqueue, []
        return lambda: graph.launch(self._compute), [graph]

    def _enqueue(self, slot: Slot, shape: OpenShape) -> None:
        """Enqueue all parts of the slot's pass on the compute stream, from preprocess to download."""
        for enqueue in self._work(slot, shape).values():
            enqueue()

    def _work(self, slot: Slot, shape: OpenShape) -> dict[str, Callable[[], None]]:
        """The parts of the slot's pass by name, in order; each enqueues and returns."""
        buffers, arrays, stream = slot.buffers, shape.network.arrays, self._compute
        letterbox, layout = buffers.letterbox, buffers.layout
        kernel = getattr(self._kernels, buffers.kernel)
        if layout.colour is not None:
            kernel = partial(kernel, frame_wh=layout.wh, colour=layout.colour)

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
            stream.download(slot.people.array, shape.workspace.packed)

        return {
            "preprocess": preprocess,
            "infer": lambda: shape.network.enqueue(stream),
            "group": group,
            "download": download,
        }
