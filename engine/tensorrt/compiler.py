"""ONNX to a serialised engine, strongly typed: types are the graph's own. One path for TensorRT 10, 11 and RTX."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.errors import EngineError, ModelError
from core.files import write_whole
from core.progress import Progress, unseen
from core.spec import ModelSpec
from engine.shapes import ShapeRange
from engine.tensorrt.flavor import make_log

logger = logging.getLogger(__name__)


def compile_plan(
    trt: Any,
    onnx: Path,
    spec: ModelSpec,
    shapes: ShapeRange,
    *,
    timing_cache: Path | None = None,
    progress: Progress = unseen,
    target: str | None = None,
) -> bytes:
    """The serialised engine of an ONNX file for `shapes`.

    timing_cache: file of kernel timings, read if it is there, and brought up to date. target: of TensorRT-RTX, the one
    kind of GPU to build for, a ComputeCapability by name ("CURRENT", "SM80"); by default a portable plan. Ctrl-C stops
    the build at TensorRT's next step. Raises ModelError for a file TensorRT cannot parse, naming the node, ValueError
    for shapes the model does not take, EngineError if the build fails; and what `progress` raises.
    """
    monitor = _make_monitor(trt, progress)
    # In a thread of its own: the main thread then waits where Ctrl-C reaches it, and TensorRT's callbacks, which must
    # not raise, never run there.
    with ThreadPoolExecutor(1, thread_name_prefix="tensorrt-build") as pool:
        building = pool.submit(
            _compile, trt, onnx, spec, shapes, timing_cache=timing_cache, monitor=monitor, target=target
        )
        try:
            return building.result()
        except BaseException:
            monitor.stopped = True  # the pool then waits for the build to end
            raise


def parse(trt: Any, builder: Any, onnx: Path, log: Any) -> tuple[Any, Any]:
    """The network of an ONNX file, and its parser, which owns the weights. Raises ModelError naming the node."""
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    if parser.parse_from_file(str(onnx)) and network.num_outputs:
        return network, parser
    reason = "it has no outputs"
    if parser.num_errors:
        fault = parser.get_error(0)
        try:
            where = f"node {fault.node_name()} ({fault.node_operator()}): " if fault.node_name() else ""
            reason = where + " ".join(fault.desc().split())
        except UnicodeDecodeError:  # the name itself is damaged
            reason = "its bytes are damaged"
    raise ModelError(f"TensorRT cannot parse {onnx}: {reason}; export it again: python -m export")


def _compile(
    trt: Any,
    onnx: Path,
    spec: ModelSpec,
    shapes: ShapeRange,
    *,
    timing_cache: Path | None,
    monitor: Any,
    target: str | None,
) -> bytes:
    log = make_log(trt)
    builder = trt.Builder(log)
    network, parser = parse(trt, builder, onnx, log)
    _check_tensors(trt, network, onnx, spec)
    config = builder.create_builder_config()
    config.progress_monitor = monitor
    _set_shapes(builder, network, config, onnx, shapes)
    if target is not None:
        config.num_compute_capabilities = 1
        config.set_compute_capability(getattr(trt.ComputeCapability, target), 0)
    if timing_cache is not None:
        known = timing_cache.read_bytes() if timing_cache.is_file() else b""
        config.set_timing_cache(config.create_timing_cache(known), ignore_mismatch=False)
    plan = builder.build_serialized_network(network, config)
    del parser  # kept until here: the network's weights are its
    if monitor.error is not None:
        raise monitor.error
    if plan is None:
        reason = "it was stopped" if monitor.stopped else log.last_error()
        raise EngineError(f"TensorRT could not build {onnx} for {shapes}: {reason}")
    if timing_cache is not None:
        write_whole(timing_cache, bytes(config.get_timing_cache().serialize()))
    return bytes(plan)


def _check_tensors(trt: Any, network: Any, onnx: Path, spec: ModelSpec) -> None:
    """Inputs and outputs must be those the spec speaks of, in its types."""
    types = {"float16": trt.DataType.HALF, "float32": trt.DataType.FLOAT}
    expected = {"image": types[spec.input_dtype], "heatmaps": trt.DataType.FLOAT, "tags": trt.DataType.FLOAT}
    tensors = [network.get_input(i) for i in range(network.num_inputs)]
    tensors += [network.get_output(i) for i in range(network.num_outputs)]
    found = {tensor.name: tensor.dtype for tensor in tensors}
    if found != expected:
        got, wanted = (", ".join(f"{name} {dtype.name}" for name, dtype in t.items()) for t in (found, expected))
        raise ModelError(f"{onnx} has the tensors {got}; expected {wanted}: export it again: python -m export")


def _set_shapes(builder: Any, network: Any, config: Any, onnx: Path, shapes: ShapeRange) -> None:
    n, _, h, w = network.get_input(0).shape
    for fixed, name, wanted in zip((n, h, w), "NHW", zip(shapes.smallest, shapes.largest, strict=True), strict=True):
        if fixed >= 0 and wanted != (fixed, fixed):
            raise ValueError(f"{onnx} has {name} fixed to {fixed}, asked for {shapes}; export it without --fixed")
    profile = builder.create_optimization_profile()
    full = [(shape[0], 3, *shape[1:]) for shape in (shapes.smallest, shapes.best, shapes.largest)]
    profile.set_shape("image", *full)
    config.add_optimization_profile(profile)


def _make_monitor(trt: Any, progress: Progress) -> Any:
    """A trt.IProgressMonitor that turns nested phases into one growing share, and stops the build when told to."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]  # its base is known at run time only
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.stopped = False
            self.error: BaseException | None = None
            self._phases: dict[str, _Phase] = {}
            self._share = 0.0
            self._lock = threading.Lock()  # TensorRT calls from several threads

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            with self._lock:
                self._phases[phase_name] = _Phase(parent_phase, max(1, num_steps))
                self._tell(phase_name)

        def step_complete(self, phase_name: str, step: int) -> bool:
            with self._lock:
                if phase_name in self._phases:
                    self._phases[phase_name].done = step + 1
                self._tell(phase_name)
                return not self.stopped

        def phase_finish(self, phase_name: str) -> None:
            with self._lock:
                self._phases.pop(phase_name, None)

        def _tell(self, phase_name: str) -> None:
            roots = [name for name, phase in self._phases.items() if phase.parent not in self._phases]
            self._share = max(self._share, min(1.0, sum(self._done(name) for name in roots)))
            if self.stopped:
                return
            try:
                progress(phase_name, self._share)
            except BaseException as error:  # must not pass through TensorRT: handed to the caller after the build
                self.error = error
                self.stopped = True

        def _done(self, name: str) -> float:
            phase = self._phases[name]
            inner = sum(self._done(child) for child, other in self._phases.items() if other.parent == name)
            return min(1.0, (phase.done + inner) / phase.steps)

    return Monitor()


@dataclass
class _Phase:
    parent: str | None
    steps: int
    done: int = 0
