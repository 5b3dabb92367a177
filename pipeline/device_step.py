"""DeviceStep: a frame's way on the GPU, from pinned memory to pinned memory; only people come back.

    prepare   the frame is copied into the slot's pinned memory, and its upload starts      (copy stream)
    infer     once uploaded, one graph launch: preprocess, network, decode, download         (compute stream)
    finish    wait for the slot's event, read the people

A slot owns its frame, pinned and on the device, and its people, pinned. The network, the decode's workspace and the
device's people are shared by all slots: the compute stream runs one frame after another. Only `finish` waits.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.errors import EngineError
from core.spec import ModelSpec
from engine.device import Device, DeviceArray, Event, Graph, PinnedArray, exclusive
from engine.runner import DeviceNetwork
from kernels.options import DecodeOptions
from pipeline.letterbox import Letterbox
from pipeline.step import SLOTS, people_in_frame
from pipeline.types import People

logger = logging.getLogger(__name__)

SHAPES_KEPT = 4  # input shapes whose network and buffers stay: a folder of photographs has a handful
TIMED_TOGETHER = 16  # passes of the engine alone in a queue, so that the device never waits for the host


@dataclass(eq=False)
class _Shape:
    """What frames of one input shape share."""

    network: DeviceNetwork
    workspace: Any
    maps: tuple[DeviceArray, DeviceArray]  # the network's heatmaps and tags, (N, T, K, h, w)
    used: int = 0  # the number of the last frame, to let the oldest shape go
    # The thread in which it last ran for the first time: kernels are compiled, plans are chosen. PyTorch chooses plans
    # per thread, and choosing synchronises: what one thread has run, another may not capture.
    warmed_by: threading.Thread | None = None

    def close(self) -> None:
        """Free both; no frame of this shape is on its way."""
        self.network.close()
        self.workspace.close()


@dataclass(eq=False)
class _Slot:
    uploaded: Event
    done: Event
    people: PinnedArray  # a copy of the workspace's `packed`
    letterbox: Letterbox | None = None
    count: int = 0  # of the batch, the frames that were prepared
    pinned: PinnedArray | None = None  # (batch, H, W, 3) uint8
    frames: DeviceArray | None = None  # likewise
    graph: Graph | None = None
    graph_of: _Shape | None = None  # the shape whose buffers the graph uses


class DeviceStep:
    """A FrameStep whose every stage between upload and people runs on the GPU.

    network_for: opens the network for an input (N, H, W); may build a plan first. The step closes what it opened.
    kernels: the module with `preprocess`, `decode`, `Workspace` and what unpacks people; by default `kernels.cuda`.
    graphs: launch each frame as one CUDA graph; may be switched between frames. Where none can be captured, plain
        launches follow, which is logged.
    size, flip, batch: as PosePipeline.
    The step owns the device and closes it. Raises EngineError where the GPU lacks something.
    """

    slots = SLOTS
    at_once = 1  # the GPU is one, and its queue never runs dry

    def __init__(
        self,
        device: Device,
        network_for: Callable[[tuple[int, int, int]], DeviceNetwork],
        spec: ModelSpec,
        *,
        engine: str,
        about: str,
        options: DecodeOptions,
        size: int | None = None,
        flip: bool = False,
        batch: int = 1,
        graphs: bool = True,
        kernels: Any = None,
    ) -> None:
        if kernels is None:
            import kernels.cuda as kernels  # here: numba.cuda, and so a GPU, is not needed to import the pipeline
        self.spec, self.engine, self.about, self.precision = spec, engine, about, spec.precision
        self.device, self.network_for, self._kernels = device, network_for, kernels
        self._options, self._size, self.batch, self.graphs = options, size, batch, graphs
        self._passes = 2 if flip else 1  # images of a frame: itself, and mirrored
        self._shapes: dict[tuple[int, int, int], _Shape] = {}
        self._frames = 0
        self._graphs_change = threading.Lock()  # `prepare` and `infer` free graphs, each from its own thread
        people, joints = options.max_people, spec.num_joints
        with device.current():
            self._copy, self._compute = device.stream(), device.stream()
            self._slots = [
                _Slot(
                    device.event(),
                    device.event(),
                    device.pinned((kernels.packed_size(batch, people, joints),), np.float32),
                )
                for _ in range(self.slots)
            ]

    def prepare(self, slot: int, images: Sequence[NDArray[np.uint8]]) -> None:
        kept = self._slots[slot]
        with self.device.current():
            if kept.pinned is None or kept.frames is None or kept.pinned.array.shape[1:] != images[0].shape:
                self._resize(kept, images[0].shape)
            assert kept.pinned is not None
            assert kept.frames is not None
            kept.count = len(images)
            for pinned, image in zip(kept.pinned.array, images, strict=False):
                np.copyto(pinned, image)
            self._copy.upload(kept.frames, kept.pinned.array)
            kept.uploaded.record(self._copy)

    def infer(self, slot: int) -> None:
        kept = self._slots[slot]
        assert kept.letterbox is not None
        with self.device.current():
            shape = self._shape((self.batch * self._passes, *kept.letterbox.input_hw))
            self._compute.wait_for(kept.uploaded)
            if self.graphs and kept.graph is not None and kept.graph_of is shape:
                kept.graph.launch(self._compute)
            elif shape.warmed_by is not threading.current_thread():
                with exclusive():
                    self._enqueue(kept, shape)
                shape.warmed_by = threading.current_thread()
            elif (graph := self._slot_graph(kept, shape)) is not None:
                graph.launch(self._compute)
            else:
                self._enqueue(kept, shape)
            kept.done.record(self._compute)

    def infer_beside(self, slot: int) -> None:
        self.infer(slot)

    def finish(self, slot: int) -> list[People]:
        kept = self._slots[slot]
        assert kept.letterbox is not None
        with self.device.current():
            kept.done.wait()
        shape = self.batch, self._options.max_people, self.spec.num_joints
        keypoints, scores, counts = self._kernels.unpack_people(kept.people.array, shape)
        return [
            people_in_frame(keypoints[n, :found], scores[n, :found].copy(), kept.letterbox)
            for n, found in enumerate(counts[: kept.count].tolist())
        ]

    def settle(self) -> None:
        """A caller who leaves early leaves frames on their way: no slot may be written before they are done."""
        with self.device.current():
            try:
                self._copy.synchronize()
                self._compute.synchronize()
            except EngineError as error:  # reported by the frame it happened to
                logger.warning("%s", error)

    def input_shape(self, frame_wh: tuple[int, int]) -> tuple[int, int, int]:
        return self.batch * self._passes, *Letterbox.for_model(frame_wh, self.spec, self._size).input_hw

    def warm_up(self, frame_wh: tuple[int, int]) -> None:
        blank = np.zeros((frame_wh[1], frame_wh[0], 3), np.uint8)
        for slot in (*range(self.slots), 0):  # the first pass compiles, each slot's next one captures its graph
            self.prepare(slot, [blank] * self.batch)
            self.infer(slot)
            self.finish(slot)

    def time_engine(self, frame_wh: tuple[int, int], *, seconds: float, beside: bool = False) -> list[float]:
        times_ms: list[float] = []
        with self.device.current():
            shape = self._shape(self.input_shape(frame_wh))
            launch, graphs = self._repeatable(lambda: shape.network.enqueue(self._compute), shape)
            marks = [self.device.event(timing=True) for _ in range(TIMED_TOGETHER + 1)]
            while len(times_ms) < 3 or sum(times_ms) < seconds * 1e3:
                launch()  # the first of a row waits for the host, and is not timed
                marks[0].record(self._compute)
                for mark in marks[1:]:
                    launch()
                    mark.record(self._compute)
                marks[-1].wait()
                times_ms += [after.ms_since(before) for before, after in pairwise(marks)]
            self.device.free(*marks, *graphs)
        return times_ms

    def time_parts(self, image: NDArray[np.uint8], *, seconds: float) -> dict[str, list[float]]:
        """Device milliseconds of each part of a frame, each a graph of its own: what the frame's one graph hides.

        The parts: upload, preprocess, infer, group, download; at least three passes, repeated for about `seconds`.
        """
        self.prepare(0, [image] * self.batch)
        self.infer(0)
        self.finish(0)
        kept, shape = self._slots[0], self._shape(self.input_shape((image.shape[1], image.shape[0])))
        pinned, frame = kept.pinned, kept.frames
        assert pinned is not None
        assert frame is not None
        with self.device.current():
            work = {"upload": lambda: self._compute.upload(frame, pinned.array), **self._work(kept, shape)}
            graphs: list[Graph] = []
            for name, enqueue in work.items():
                work[name], made = self._repeatable(enqueue, shape)
                graphs += made
            times_ms: dict[str, list[float]] = {name: [] for name in work}
            marks = [self.device.event(timing=True) for _ in range(len(work) + 1)]
            while len(times_ms["infer"]) < 3 or sum(map(sum, times_ms.values())) < seconds * 1e3:
                marks[0].record(self._compute)
                for enqueue, mark in zip(work.values(), marks[1:], strict=True):
                    enqueue()
                    mark.record(self._compute)
                marks[-1].wait()
                for name, (before, after) in zip(work, pairwise(marks), strict=True):
                    times_ms[name].append(after.ms_since(before))
            self.device.free(*marks, *graphs)
        return times_ms

    def replace_networks(self, network_for: Callable[[tuple[int, int, int]], DeviceNetwork]) -> None:
        """Open networks by this function from now on, and close those that are open. No frame is on its way."""
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
            except EngineError as error:  # reported where it happened; here it must not stop the closing
                logger.warning("%s", error)
            with exclusive():
                for shape in self._shapes.values():
                    shape.close()
            self._shapes.clear()
        self.device.close()

    def _resize(self, kept: _Slot, image_shape: tuple[int, ...]) -> None:
        """New buffers for frames of another size. The slot is free, so that nothing uses the old ones any more."""
        self._drop_graph(kept)
        self.device.free(*(thing for thing in (kept.frames, kept.pinned) if thing is not None))
        kept.pinned = kept.frames = None
        kept.letterbox = Letterbox.for_model((image_shape[1], image_shape[0]), self.spec, self._size)
        kept.pinned = self.device.pinned((self.batch, *image_shape), np.uint8)
        kept.frames = self.device.empty((self.batch, *image_shape), np.uint8)

    def _shape(self, nhw: tuple[int, int, int]) -> _Shape:
        self._frames += 1
        if nhw not in self._shapes:
            with exclusive():
                if len(self._shapes) >= SHAPES_KEPT:
                    self._forget_oldest()
                self._shapes[nhw] = self._open_shape(nhw)
        self._shapes[nhw].used = self._frames
        return self._shapes[nhw]

    def _open_shape(self, nhw: tuple[int, int, int]) -> _Shape:
        network = self.network_for(nhw)
        maps = self._of_each_frame(network)
        try:
            workspace = self._kernels.Workspace(
                maps[0].shape, self._options, dtype=maps[0].dtype, tag_dims=self.spec.tag_dims
            )
            return _Shape(network, workspace, maps)
        except BaseException:
            network.close()
            raise

    def _of_each_frame(self, network: DeviceNetwork) -> tuple[DeviceArray, DeviceArray]:
        """The network's outputs (N * T, ...) as (N, T, ...), T 2 with flip."""
        heatmaps, tags = (
            array.reshaped((self.batch, self._passes, *array.shape[1:]))
            for array in (network.arrays["heatmaps"], network.arrays["tags"])
        )
        return heatmaps, tags

    def _forget_oldest(self) -> None:
        oldest = min(self._shapes, key=lambda nhw: self._shapes[nhw].used)
        shape = self._shapes.pop(oldest)
        self._compute.synchronize()  # a frame of this shape may still be on its way
        for kept in self._slots:
            if kept.graph_of is shape:
                self._drop_graph(kept)
        shape.close()

    def _drop_graph(self, kept: _Slot) -> None:
        with self._graphs_change:
            if kept.graph is not None:
                self.device.free(kept.graph)
            kept.graph = kept.graph_of = None

    def _slot_graph(self, kept: _Slot, shape: _Shape) -> Graph | None:
        """The slot's frame as one graph, for its next frames too; None without graphs, or where it cannot be one."""
        if not self.graphs:
            return None
        self._drop_graph(kept)
        graph = self._captured(lambda: self._enqueue(kept, shape), shape)
        if graph is None:
            self.graphs = False
        else:
            kept.graph, kept.graph_of = graph, shape
        return graph

    def _captured(self, enqueue: Callable[[], None], shape: _Shape) -> Graph | None:
        """None where it cannot be captured, which is logged."""
        try:
            if (problem := shape.network.capture_problem(self._compute)) is not None:
                raise EngineError(problem)
            return self.device.own(self._compute.capture(enqueue))
        except EngineError as error:
            logger.warning("frames are launched kernel by kernel, which is slower: %s", error)
            return None

    def _repeatable(self, enqueue: Callable[[], None], shape: _Shape) -> tuple[Callable[[], None], list[Graph]]:
        """`enqueue`, which has then run once, as a launch that costs the host little; and the graph to free."""
        with exclusive():
            enqueue()
        graph = self._captured(enqueue, shape) if self.graphs else None
        if graph is None:
            return enqueue, []
        return lambda: graph.launch(self._compute), [graph]

    def _enqueue(self, kept: _Slot, shape: _Shape) -> None:
        """Everything from the uploaded frame to its people in pinned memory, on the compute stream."""
        for enqueue in self._work(kept, shape).values():
            enqueue()

    def _work(self, kept: _Slot, shape: _Shape) -> dict[str, Callable[[], None]]:
        """The same in its parts, in order; each enqueues and returns."""
        arrays, letterbox, stream = shape.network.arrays, kept.letterbox, self._compute
        assert letterbox is not None

        def preprocess() -> None:
            self._kernels.preprocess(
                kept.frames,
                arrays["image"],
                scale=letterbox.scale,
                center=letterbox.center,
                mean=self.spec.mean,
                std=self.spec.std,
                mirror=self._passes == 2,
                stream=stream.handle,
            )

        def group() -> None:
            self._kernels.decode(*shape.maps, workspace=shape.workspace, stream=stream.handle)

        def download() -> None:
            stream.download(kept.people.array, shape.workspace.packed)

        return {
            "preprocess": preprocess,
            "infer": lambda: shape.network.enqueue(stream),
            "group": group,
            "download": download,
        }
