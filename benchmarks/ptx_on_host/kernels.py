"""The kernels of a live frame, launched by their own wrappers; only memory, device limits and the launch are replaced.

`Workspace` and `preprocess` choose kernels, grids and arguments, as they do on a GPU; so a kernel that changes its
arguments or its grid needs no change here.
"""

from __future__ import annotations

import importlib
import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
from numba import typeof
from numpy.typing import NDArray

from benchmarks.ptx_on_host.machine import Counts, Program
from kernels import cpu
from kernels.colour import Colour
from kernels.cuda._cuda import cuda
from kernels.options import DecodeOptions

logger = logging.getLogger(__name__)

# The package's functions `decode` and `preprocess` hide the modules of these names.
decode_module = importlib.import_module("kernels.cuda.decode")
preprocess_module = importlib.import_module("kernels.cuda.preprocess")
nv12_module = importlib.import_module("kernels.cuda.preprocess_nv12")

TARGET = (9, 0)  # compute capability
DEVICE = {
    "multiprocessors": 132,  # an H100
    "threads_resident": 2048,
    "shared_bytes": 48 * 1024,
    "threads": 1024,
    "grid_y": 65535,
    "grid_z": 65535,
}
DECODE = ("peaks", "select", "group", "refine", "filter")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
COLOUR = Colour("bt709")
Floats = NDArray[np.float32]
People = tuple[Floats, Floats]  # keypoints (P, K, 3) and scores (P,)


class HostArray(np.ndarray[Any, Any]):
    """Host memory with the methods of Numba's device arrays that the project uses."""

    def copy_to_device(self, source: Any) -> None:
        self[...] = source

    def copy_to_host(self) -> NDArray[Any]:
        return np.array(self)

    def is_c_contiguous(self) -> bool:
        return self.flags.c_contiguous


def on_host(array: NDArray[Any]) -> HostArray:
    return np.ascontiguousarray(array).view(HostArray)


def compile_ptx(kernel: Any, arguments: tuple[Any, ...], *, lines: bool) -> str:
    """The PTX that a launch of a Numba kernel with these arguments would run; needs no GPU.

    lines: add the Python lines of the instructions; this changes only a few instructions.
    """

    def plain(argument: Any) -> Any:
        return np.asarray(argument) if isinstance(argument, np.ndarray) else argument

    device = SimpleNamespace(compute_capability=TARGET)
    with mock.patch("numba.cuda.dispatcher.get_current_device", lambda: device), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*compile_ptx.*")
        types = tuple(typeof(plain(argument)) for argument in arguments)
        ptx, _ = cuda.compile_ptx(kernel.py_func, types, cc=TARGET, lineinfo=lines)
    return str(ptx)


@dataclass
class HostKernel:
    """Replaces one of the project's kernels: `kernel[grid, block, stream](*arguments)` runs it on the host, at once."""

    name: str
    kernel: Any
    lines: bool = False
    seed: int = 0
    programs: dict[Any, Program] = field(default_factory=dict)  # by kernel; chains may share them
    counts: Counts | None = None  # of the last launch

    def __getitem__(self, configuration: tuple[Any, ...]) -> Callable[..., None]:
        grid, block = (_three(sides) for sides in configuration[:2])

        def launch(*arguments: Any) -> None:
            if self.kernel not in self.programs:
                self.programs[self.kernel] = Program(self._ptx(arguments))
            self.counts = self.programs[self.kernel].launch(grid, block, arguments, self.seed)

        return launch

    def _ptx(self, arguments: tuple[Any, ...]) -> str:
        if self.lines:
            from cuda.bindings.nvvm import nvvmError

            try:
                return compile_ptx(self.kernel, arguments, lines=True)
            except nvvmError as error:  # NVVM refuses some kernels with line information
                logger.warning("%s is compiled without line information: %s", self.name, error)
        return compile_ptx(self.kernel, arguments, lines=False)


def _three(sides: Any) -> tuple[int, ...]:
    given = tuple(sides) if isinstance(sides, tuple) else (sides,)
    return (*(int(side) for side in given), 1, 1)[:3]


@dataclass
class Chain:
    """The kernels of a live frame for one input size: preprocess, then the decode of `frames` frames at once.

    nv12: frames come as a video decoder leaves them, (H * 3 / 2, W), with the colours of BT.709; else as BGR.
    """

    input_hw: tuple[int, int]
    flip: bool
    options: DecodeOptions
    frames: int = 1
    tag_dims: int = 1
    nv12: bool = False
    with_lines: str = ""  # the kernel to compile with line information
    programs: dict[Any, Program] = field(default_factory=dict)
    kernels: dict[str, HostKernel] = field(init=False)

    def __post_init__(self) -> None:
        H, W = self.input_hw
        with mock.patch.multiple(
            decode_module,
            zeros=lambda shape, dtype: on_host(np.zeros(shape, dtype)),
            device_limits=lambda: DEVICE,
            SIMULATED=True,  # no first launch
        ):
            shape = (self.frames, 2 if self.flip else 1, 17, H // 2, W // 2)
            self.workspace = decode_module.Workspace(shape, self.options, tag_dims=self.tag_dims)
        kernel = nv12_module.warp_nv12 if self.nv12 else preprocess_module.warp_frames
        self.kernels = {"preprocess": HostKernel("preprocess", kernel, programs=self.programs)}
        for name in DECODE:
            self.kernels[name] = HostKernel(name, getattr(self.workspace, name), programs=self.programs)
            setattr(self.workspace, name, self.kernels[name])
        if self.with_lines:
            self.kernels[self.with_lines].lines = True

    def shuffle(self, seed: int) -> None:
        """Set the seed of the order in which blocks, warps and lanes run from now on; 0 means in order."""
        for kernel in self.kernels.values():
            kernel.seed = seed

    def preprocess(self, frame: NDArray[np.uint8]) -> NDArray[np.float16]:
        """The network's input of one frame, letterboxed: (1 or 2, 3, H, W)."""
        out = on_host(np.zeros((2 if self.flip else 1, 3, *self.input_hw), np.float16))
        if self.nv12:
            with mock.patch.object(nv12_module, "warp_nv12", self.kernels["preprocess"]):
                nv12_module.preprocess_nv12(on_host(frame), out, **self._letterbox(frame), mirror=self.flip)
        else:
            with mock.patch.object(preprocess_module, "warp_frames", self.kernels["preprocess"]):
                preprocess_module.preprocess(on_host(frame), out, **self._letterbox(frame), mirror=self.flip)
        return out.copy_to_host()

    def preprocess_on_cpu(self, frame: NDArray[np.uint8]) -> Floats:
        """The same input computed by `kernels.cpu`: (3, H, W)."""
        out = np.zeros((3, *self.input_hw), np.float32)
        (cpu.preprocess_nv12 if self.nv12 else cpu.preprocess)(frame, out, **self._letterbox(frame))
        return out

    def _letterbox(self, frame: NDArray[np.uint8]) -> dict[str, Any]:
        h, w = (frame.shape[0] * 2 // 3 if self.nv12 else frame.shape[0]), frame.shape[1]
        scale = min(self.input_hw[0] / h, self.input_hw[1] / w)
        options = {"scale": scale, "center": (w / 2, h / 2), "mean": MEAN, "std": STD}
        return {**options, "frame_wh": (w, h), "colour": COLOUR} if self.nv12 else options

    def decode(self, heatmaps: Floats, tags: Floats) -> list[tuple[People, People]]:
        """For each frame of maps (N, T, K, h, w): the people before the output filter, and after it."""
        self.workspace.launch(on_host(heatmaps), on_host(tags), 0)
        stages = [self.workspace.draft, self.workspace.people]
        results = []
        for n in range(self.frames):
            before, after = ((np.array(k[n, : c[n]]), np.array(s[n, : c[n]])) for k, s, c in stages)
            results.append((before, after))
        return results

    def decode_on_cpu(self, heatmaps: Floats, tags: Floats) -> list[tuple[People, People]]:
        """The same by `kernels.cpu`."""
        unfiltered = replace(self.options, min_joint=0.0, duplicate_oks=None)
        frames = zip(heatmaps, tags, strict=True)
        return [(cpu.decode(*maps, unfiltered), cpu.decode(*maps, self.options)) for maps in frames]


def same_bits(found: People, wanted: People) -> bool:
    return all(a.shape == b.shape and a.tobytes() == b.tobytes() for a, b in zip(found, wanted, strict=True))
