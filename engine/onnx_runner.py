"""OnnxRunner: a network on the CPU by onnxruntime. Its only requirement is a `pip` package."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Self

from core.errors import EngineError, ModelError
from core.ort import load_onnxruntime
from core.spec import METADATA_KEY, ModelSpec
from engine.runner import Heads, Images

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

INPUT = "image"
OUTPUTS = ("heatmaps", "tags")
FLOAT_TYPES = {"tensor(float)": "float32", "tensor(float16)": "float16"}
MAX_CONCURRENCY = (
    4  # concurrent passes; more would only add latency, since the stages around the network limit the rate
)
SILENT = 4  # onnxruntime's "fatal": lower levels would print messages next to our one-line error


class OnnxRunner:
    """A `.onnx` file made by `python -m export`. Use it in a `with` block, or close it.

    threads: threads of one pass; by default the number of cores this process may use. batch: N if the file fixes it,
    else None. concurrency: number of concurrent `infer_into` calls that share the threads.
    Raises ModelError if the file is not such a model, EngineError if a pass fails.
    """

    engine = "onnxruntime"

    def __init__(self, path: Path, *, threads: int | None = None) -> None:
        if not path.is_file():
            raise ModelError(f"{path} does not exist; expected an ONNX file made by python -m export")
        self.threads = threads or usable_cores()
        self.concurrency = min(self.threads, MAX_CONCURRENCY)
        session = _open(path, self.threads)
        self.spec = _spec_of(session, path)
        self.precision: str = self.spec.precision
        _check(session, self.spec, path)
        batch = session.get_inputs()[0].shape[0]
        self.batch: int | None = batch if isinstance(batch, int) else None
        self._path = path
        self._session: InferenceSession | None = session
        self._narrow: InferenceSession | None = None  # the session for concurrent passes, opened by the first of them
        self._opening = threading.Lock()

    def infer(self, images: Images) -> Heads:
        session = self._check(images)
        try:
            heatmaps, tags = session.run(OUTPUTS, {INPUT: images})
        except Exception as error:
            raise EngineError(f"{self._path} failed on an input {images.shape}: {_first_line(error)}") from error
        n, _, h, w = images.shape
        expected = (n, self.spec.num_joints, h // 2, w // 2), (n, self.spec.tag_channels, h // 4, w // 4)
        if (heatmaps.shape, tags.shape) != expected:
            raise EngineError(
                f"{self._path} gave heatmaps {heatmaps.shape} and tags {tags.shape}; expected {expected[0]} and "
                f"{expected[1]}; export it again"
            )
        return Heads(heatmaps, tags)

    def infer_into(self, images: Images, heads: Heads) -> None:
        """See ParallelRunner."""
        self._check(images)
        with self._opening:
            if self._narrow is None:
                self._narrow = _open(self._path, max(1, self.threads // self.concurrency))
        try:
            binding = self._narrow.io_binding()
            binding.bind_cpu_input(INPUT, images)
            for name, array in zip(OUTPUTS, heads, strict=True):
                binding.bind_output(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
            self._narrow.run_with_iobinding(binding)
        except Exception as error:
            raise EngineError(f"{self._path} failed on an input {images.shape}: {_first_line(error)}") from error

    def close(self) -> None:
        self._session = self._narrow = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _check(self, images: Images) -> InferenceSession:
        """The open session. Raises EngineError if this runner is closed, ValueError for wrong images."""
        if self._session is None:
            raise EngineError(f"{self._path} is closed")
        if images.ndim != 4 or images.shape[1] != 3 or images.dtype != self.spec.input_dtype:
            raise ValueError(f"images are {images.dtype} {images.shape}; expected {self.spec.input_dtype} (N, 3, H, W)")
        return self._session


def _open(path: Path, threads: int) -> InferenceSession:
    """A session whose passes use `threads` threads each."""
    onnxruntime = load_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = SILENT
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    # Spinning threads gain little speed alone and occupy the cores that capture, decode and drawing need.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has one exception class per status, without a base class of its own
        raise ModelError(f"{path} is no readable ONNX model: {_first_line(error)}; export it again") from error


def usable_cores() -> int:
    """Cores this process may run on; a container may allow fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _spec_of(session: InferenceSession, path: Path) -> ModelSpec:
    text = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
    if text is None:
        raise ModelError(f"{path} carries no model spec ({METADATA_KEY}); make it with python -m export")
    try:
        return ModelSpec.from_json(text)
    except ValueError as error:
        raise ModelError(f"{path}: {error}") from error


def _check(session: InferenceSession, spec: ModelSpec, path: Path) -> None:
    """Names, types and ranks as the spec says; sizes are checked on the first pass, since they may be dynamic."""
    inputs = {node.name: node for node in session.get_inputs()}
    outputs = {node.name: node for node in session.get_outputs()}
    if set(inputs) != {INPUT} or not set(OUTPUTS) <= set(outputs):
        raise ModelError(
            f"{path} has inputs {sorted(inputs)} and outputs {sorted(outputs)}; expected {INPUT} and "
            f"{', '.join(OUTPUTS)}; make it with python -m export"
        )
    wanted = {INPUT: spec.input_dtype, **dict.fromkeys(OUTPUTS, "float32")}
    for name, dtype in wanted.items():
        node = inputs.get(name) or outputs[name]
        if FLOAT_TYPES.get(node.type) != dtype or len(node.shape) != 4:
            raise ModelError(f"{path}: {name} is {node.type} {node.shape}; its spec says {dtype} with 4 axes")
    for name in OUTPUTS:
        channels = outputs[name].shape[1]
        if isinstance(channels, int) and (misfit := spec.misfit(name, channels)):
            raise ModelError(f"{path}: {name} has {misfit}")
    sides = tuple(inputs[INPUT].shape[2:])
    if spec.fixed_hw is not None and all(isinstance(side, int) for side in sides) and sides != spec.fixed_hw:
        raise ModelError(f"{path}: input is {sides}; its spec says fixed {spec.fixed_hw}")


def _first_line(error: BaseException) -> str:
    """onnxruntime's message without its prefix of status names, and without the trace that may follow."""
    lines = str(error).strip().splitlines()
    return lines[0].rsplit(" : ", 1)[-1].rstrip(".") if lines else type(error).__name__
