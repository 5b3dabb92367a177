"""Heads to people on the device: the launches of one decode, in order, over buffers that a `Workspace` owns.

peaks -> select -> group -> refine -> filter; the last two only where asked for. With preprocess, at most six launches a
frame. The grids follow from the shapes; no block shape or other constant here is tuned to one GPU.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import DTypeLike

from core.joints import sigmas_for
from kernels.cuda import filter, group, peaks, refine, select
from kernels.cuda._cuda import (
    SIMULATED,
    WARP,
    DeviceArray,
    Kernel,
    Stream,
    as_device_array,
    as_stream,
    device_limits,
    free_dropped,
    synchronize,
    zeros,
)
from kernels.cuda.packed import packed_size
from kernels.options import DecodeOptions


@dataclass(frozen=True, kw_only=True)
class Blocks:
    """Threads of each block; peaks and refine take a warp for tile x tile cells. Smaller ones serve the simulator."""

    tile: int = peaks.TILE
    select: int = select.THREADS
    group: int = WARP
    filter: int = filter.THREADS


class Workspace:
    """Every buffer and kernel that `decode` needs for maps of one shape, with capacity for the worst case, pure noise.

    shape: of the heatmaps, (T, K, h, w) or (N, T, K, h, w); dtype and tags_dtype: float16 or float32; tag_dims: D, 1
    or 2. Building one
    allocates, compiles and (but in the simulator) runs each kernel once, and waits; after that `decode` neither
    allocates nor waits, and a CUDA graph can capture it. One decode at a time may use a workspace, and each
    overwrites the arrays that the one before returned. Close it where its context is not always current: arrays left
    to the garbage collector cannot be freed there.
    packed: what `decode` returns, in one array (see kernels/cuda/packed.py); `unpack_people` takes a host copy apart.
    Raises ValueError if the shape is not such, or the device cannot hold a launch of it.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        options: DecodeOptions | None = None,
        *,
        dtype: DTypeLike = np.float32,
        tags_dtype: DTypeLike | None = None,
        blocks: Blocks | None = None,
        tag_dims: int = 1,
    ) -> None:
        self.options = options = options or DecodeOptions()
        self.blocks = blocks = blocks or Blocks()
        self.shape = tuple(int(side) for side in shape)
        self.dtype, self.tags_dtype = np.dtype(dtype), np.dtype(tags_dtype or dtype)
        self.tag_dims = D = tag_dims
        N, T, K, h, w = self._check()
        P, radius, scale = options.max_people, options.nms_size // 2, 2 if options.project else 1
        self.full_shape, self.tags_shape = (N, T, K, h, w), (N, T, tag_dims * K, h // 2, w // 2)
        self.tiles = (-(-w // blocks.tile), -(-h // blocks.tile))
        self._check_limits(N, K, P)

        self.peaks = peaks.peaks_kernel(radius, T == 2, options.project, blocks.tile, D)
        self.select = select.select_kernel(P, T == 2, options.project, options.adjust, blocks.select, D)
        self.group = group.group_kernel(P, K, T == 2 or D == 2, blocks.group)
        self.refine = refine.refine_kernel(P, K, T == 2, options.project, blocks.tile, D)
        self.filter = filter.filter_kernel(P, K, blocks.filter)
        self.filters = options.duplicate_oks is not None or options.min_joint > 0

        twins = options.flip_for(K) if T == 2 else range(K)
        order = list(options.order_for(K))
        self.orders = zeros(
            (3, K), np.int32
        )  # each joint's mirror twin; the joint of each step; the step of each joint
        self.orders.copy_to_device(np.array([list(twins), order, np.argsort(order)], np.int32))
        self.sizes = np.int32(K), np.int32(h), np.int32(w)
        self.sharpness = zeros((K,), np.float32)
        self.sharpness.copy_to_device(np.array([1 / (8 * sigma**2) for sigma in sigmas_for(K)], np.float32))
        self.threshold = np.float32(options.threshold)
        self.group_thresholds = (np.float32(options.tag_threshold), np.float32(options.min_score))
        self.filter_thresholds = (
            np.float32(options.min_joint),
            np.float32(2 if options.duplicate_oks is None else options.duplicate_oks),
        )

        self.keys = zeros((N * K, peaks.capacity(h * scale, w * scale, radius)), np.int64)
        self.counts = zeros((N * K,), np.int32)  # zero between decodes
        self.bounds = zeros((N * K * peaks.BOUNDS * self.tiles[0] * self.tiles[1],), np.float32)
        self.found = zeros((N * K * group.FIELDS * P,), np.float32)
        self.totals = zeros((N, K), np.int32)
        self.centres = zeros((N * P * 2,), np.float32)
        self.missing = zeros((N * (1 + P * K),), np.int32)
        self.searches = zeros((N * 2 * P * K,), np.int64)
        self.packed, self.people = self._people(N, P, K)
        self.draft_packed, self.draft = self._people(N, P, K) if self.filters else (self.packed, self.people)
        self.result = self.people
        if len(self.shape) == 4:
            self.result = tuple(array.reshape(array.shape[1:]) for array in self.people)
        if not SIMULATED:
            self.launch(zeros(self.full_shape, self.dtype), zeros(self.tags_shape, self.tags_dtype), 0)
            synchronize()  # streams that do not wait for the default one may use the workspace at once

    def launches(
        self, heatmaps: DeviceArray, tags: DeviceArray, stream: Stream
    ) -> list[tuple[str, Kernel, tuple[object, ...]]]:
        """The kernels of one decode in order: name, kernel with its grid, arguments. Maps of full_shape, tags_shape."""
        N, K = self.totals.shape
        blocks, warp = self.blocks, peaks.STRIPS * self.blocks.tile
        maps = (heatmaps.reshape(heatmaps.size), tags.reshape(tags.size), self.sizes, self.orders)
        search = (self.centres, self.missing, self.searches)
        sequence: list[tuple[str, Kernel, tuple[object, ...]]] = [
            (
                "peaks",
                self.peaks[(*self.tiles, N * K), warp, stream],
                (*maps, self.threshold, self.keys, self.counts, self.bounds),
            ),
            (
                "select",
                self.select[(K, N), blocks.select, stream],
                (*maps, self.keys, self.counts, self.found, self.totals),
            ),
            (
                "group",
                self.group[N, blocks.group, stream],
                (self.found, self.totals, self.orders, self.group_thresholds, *search, self.draft_packed),
            ),
        ]
        if self.options.refine:
            refine_them = self.refine[(self.searchers, N), warp, stream]
            sequence.append(("refine", refine_them, (*maps, self.bounds, *search, self.draft_packed)))
        if self.filters:
            filter_them = self.filter[N, blocks.filter, stream]
            sequence.append(
                ("filter", filter_them, (self.draft_packed, self.sharpness, self.filter_thresholds, self.packed))
            )
        return sequence

    def launch(self, heatmaps: DeviceArray, tags: DeviceArray, stream: Stream) -> None:
        """One decode of maps of full_shape and tags_shape."""
        for _, kernel, arguments in self.launches(heatmaps, tags, stream):
            kernel(*arguments)

    def close(self) -> None:
        """Free the buffers; the context in which they were made must be current. No other call may follow."""
        self.__dict__.clear()
        free_dropped()

    @staticmethod
    def _people(N: int, P: int, K: int) -> tuple[DeviceArray, tuple[DeviceArray, DeviceArray, DeviceArray]]:
        """`packed`, and keypoints, scores and count in it."""
        ends = N * P * K * 3, N * P * K * 3 + N * P
        packed = zeros((packed_size(N, P, K),), np.float32)
        keypoints, scores = packed[: ends[0]].reshape(N, P, K, 3), packed[ends[0] : ends[1]].reshape(N, P)
        return packed, (keypoints, scores, packed[ends[1] :].view(np.int32))

    def _check(self) -> tuple[int, ...]:
        shape = self.shape if len(self.shape) == 5 else (1, *self.shape)
        if len(shape) != 5 or min(shape) < 1 or shape[1] > 2 or shape[3] % 2 or shape[4] % 2:
            raise ValueError(
                f"heatmaps are {self.shape}; expected (T, K, h, w) or (N, T, K, h, w), T 1 or 2, h and w even"
            )
        if self.dtype not in (np.float16, np.float32) or self.tags_dtype not in (np.float16, np.float32):
            raise ValueError(f"maps are {self.dtype} and {self.tags_dtype}; expected float16 or float32")
        if self.tag_dims not in (1, 2):
            raise ValueError(f"tags are {self.tag_dims} numbers; expected 1 or 2")
        return shape

    def _check_limits(self, N: int, K: int, P: int) -> None:
        """What the device can launch, against what this shape and these options need."""
        device = device_limits()
        self.searchers = max(1, device["multiprocessors"] * refine.WARPS // N)
        tiling = peaks.tiling(self.options.nms_size // 2, self.options.project, self.blocks.tile)
        for name, need, have in (
            ("images x joints", N * K, device["grid_z"]),
            ("images", N, device["grid_y"]),
            ("max_people", P, min(self.blocks.select, self.blocks.filter)),
            ("cells of all maps", prod(self.full_shape), 2**31 - 1),  # indices are of 32 bits
            (
                f"shared memory (bytes) for nms_size {self.options.nms_size}",
                tiling.shared_bytes,
                device["shared_bytes"],
            ),
            (
                "shared memory (bytes) for max_people x joints",
                max(group.shared_bytes(P, K), filter.shared_bytes(P, K)),
                device["shared_bytes"],
            ),
            ("threads of a block", self.blocks.filter, device["threads"]),
        ):
            if need > have:
                raise ValueError(f"{name} is {need}; the device takes at most {have}")


def decode(
    heatmaps: DeviceArray,
    tags: DeviceArray,
    options: DecodeOptions | None = None,
    workspace: Workspace | None = None,
    stream: Stream = 0,
) -> tuple[DeviceArray, DeviceArray, DeviceArray]:
    """The people of one frame or of N, left on the device; only launches, on `stream`, and waits for nothing.

    heatmaps: (T, K, h, w) or (N, T, K, h, w) float16/32 in device memory (anything with __cuda_array_interface__): a
    network's output at 1/2 of its input. tags: likewise (…, D * K, h/2, w/2), D = 1 or 2 numbers a tag. T = 2 holds the
    mirrored frame second, exactly as the network gave it; with D = 2 its tags are not used. stream: a Numba stream
    or a CUstream handle.
    workspace: for this shape; its own options hold, and `options` must be None or equal. Without one, each call
    builds one, which allocates and waits.
    Returns keypoints (N, max_people, K, 3): x, y in network-input pixels, pixel centres at +0.5, and value; scores
    (N, max_people); count (N,) int32. Unused rows are zero. Without N in, all three lack it. The workspace owns them:
    the next decode overwrites them.
    The same bits as `kernels.cpu.decode`, on every run, but for the exponential of duplicate_oks.
    Raises ValueError or TypeError if an argument does not fit.
    """
    heatmaps, tags = as_device_array(heatmaps, "heatmaps"), as_device_array(tags, "tags")
    if workspace is None:
        numbers = tags.shape[-3] // heatmaps.shape[-3] if tags.ndim == heatmaps.ndim > 2 else 1
        types = {"dtype": heatmaps.dtype, "tags_dtype": tags.dtype}
        workspace = Workspace(heatmaps.shape, options, **types, tag_dims=numbers)
    elif options is not None and options != workspace.options:
        raise ValueError(
            f"options {options} differ from the workspace's {workspace.options}; pass None or build another"
        )
    if heatmaps.shape != workspace.shape or heatmaps.dtype != workspace.dtype:
        raise ValueError(
            f"heatmaps are {heatmaps.dtype} {heatmaps.shape}; the workspace takes {workspace.dtype} {workspace.shape}: "
            "build another"
        )
    tags_shape = (*heatmaps.shape[:-3], *workspace.tags_shape[-3:])
    if tags.shape != tags_shape or tags.dtype != workspace.tags_dtype:
        raise ValueError(
            f"tags are {tags.dtype} {tags.shape}; expected {workspace.tags_dtype} {tags_shape}: half the heatmaps' "
            f"sides, {workspace.tag_dims} number(s) a joint"
        )
    if heatmaps.ndim == 4:
        heatmaps, tags = heatmaps.reshape(workspace.full_shape), tags.reshape(workspace.tags_shape)
    workspace.launch(heatmaps, tags, as_stream(stream))
    return workspace.result
