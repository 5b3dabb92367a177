"""ONNX to a serialised engine, strongly typed: the graph sets all types. One code path for TensorRT 10, 11, RTX."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from core.errors import EngineError, ModelError
from core.files import write_whole
from core.progress import Progress, unseen
from core.spec import ModelSpec
from engine.shapes import ShapeRange
from engine.tensorrt.flavor import MODULES, TrtObject, make_log

logger = logging.getLogger(__name__)


def compile_plan(
    trt: TrtObject,
    onnx: Path,
    spec: ModelSpec,
    shapes: ShapeRange,
    *,
    timing_cache: Path | None = None,
    progress: Progress = unseen,
    target: str | None = None,
    within: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> bytes:
    """The serialised engine of an ONNX file for `shapes`.

    timing_cache: file of kernel timings, read if it exists, and updated. target: for TensorRT-RTX only, the kind of GPU
    to build for, a ComputeCapability by name ("CURRENT", "SM80"); by default the plan is portable. within: makes the
    context of the GPU to build on current in a thread; by default the first GPU's. Ctrl-C stops the build at TensorRT's
    next step. Raises ModelError, which names the node, for a file TensorRT cannot parse, ValueError for shapes the
    model does not accept, EngineError if the build fails, and whatever `progress` raises.
    """
    monitor = _make_monitor(trt, progress)

    # The build has its own thread, so that Ctrl-C can interrupt the waiting main thread. TensorRT's callbacks, which
    # must not raise, then never run in the main thread.
    def build() -> bytes:
        with within():
            return _compile(trt, onnx, spec, shapes, timing_cache=timing_cache, monitor=monitor, target=target)

    with ThreadPoolExecutor(1, thread_name_prefix="tensorrt-build") as pool:
        building = pool.submit(build)
        try:
            return building.result()
        except BaseException:
            monitor.stopped = True  # the pool then waits for the build to end
            raise


def parse(trt: TrtObject, builder: TrtObject, onnx: Path, log: TrtObject) -> tuple[TrtObject, TrtObject]:
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
    trt: TrtObject,
    onnx: Path,
    spec: ModelSpec,
    shapes: ShapeRange,
    *,
    timing_cache: Path | None,
    monitor: TrtObject,
    target: str | None,
) -> bytes:
    log = make_log(trt)
    log.forget()
    builder = trt.Builder(log)
    network, parser = parse(trt, builder, onnx, log)
    _check_tensors(trt, network, onnx, spec)
    config = builder.create_builder_config()
    config.progress_monitor = monitor
    _set_shapes(builder, network, config, onnx, shapes)
    if trt.__name__ == MODULES["tensorrt-rtx"]:
        # A pass that allocates by itself cannot be captured into a CUDA graph.
        config.set_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)
    if target is not None:
        config.num_compute_capabilities = 1
        if not config.set_compute_capability(getattr(trt.ComputeCapability, target), 0):
            raise EngineError(f"TensorRT cannot build for {target}: {log.last_error()}; leave the target out")
    if timing_cache is not None:
        _use_timings(config, timing_cache)
    plan = builder.build_serialized_network(network, config)
    del parser  # kept until here, since it owns the network's weights
    if monitor.error is not None:
        raise monitor.error
    if plan is None:
        reason = "it was stopped" if monitor.stopped else log.last_error()
        raise EngineError(f"TensorRT could not build {onnx} for {shapes}: {reason}")
    if timing_cache is not None:
        _keep_timings(config, timing_cache)
    return bytes(plan)


def _use_timings(config: TrtObject, path: Path) -> None:
    """Load the timings of earlier builds, which only save time; none if the file is from another GPU or version."""
    known = path.read_bytes() if path.is_file() else b""
    for content in (known, b"") if known else (b"",):
        timings = config.create_timing_cache(content)
        if timings is not None and config.set_timing_cache(timings, ignore_mismatch=False):
            return
    logger.warning("TensorRT does not take timings (%s); this build measures every kernel", path)


def _keep_timings(config: TrtObject, path: Path) -> None:
    """Save the timings for the next build. Never raises, since the plan is built already."""
    timings = config.get_timing_cache()
    serialised = None if timings is None else timings.serialize()
    if serialised is None:
        return
    try:
        write_whole(path, bytes(serialised))
    except OSError as error:
        logger.warning("%s cannot be written (%s); the next build measures again", path, error.strerror or error)


def _check_tensors(trt: TrtObject, network: TrtObject, onnx: Path, spec: ModelSpec) -> None:
    """Raises ModelError unless inputs and outputs have the spec's names and types."""
    types = {"float16": trt.DataType.HALF, "float32": trt.DataType.FLOAT}
    expected = {"image": types[spec.input_dtype], "heatmaps": trt.DataType.FLOAT, "tags": trt.DataType.FLOAT}
    tensors = [network.get_input(i) for i in range(network.num_inputs)]
    tensors += [network.get_output(i) for i in range(network.num_outputs)]
    found = {tensor.name: tensor.dtype for tensor in tensors}
    if found != expected:
        got, wanted = (", ".join(f"{name} {dtype.name}" for name, dtype in t.items()) for t in (found, expected))
        raise ModelError(f"{onnx} has the tensors {got}; expected {wanted}: export it again: python -m export")


def _set_shapes(builder: TrtObject, network: TrtObject, config: TrtObject, onnx: Path, shapes: ShapeRange) -> None:
    n, _, h, w = network.get_input(0).shape
    for fixed, name, wanted in zip((n, h, w), "NHW", zip(shapes.smallest, shapes.largest, strict=True), strict=True):
        if fixed >= 0 and wanted != (fixed, fixed):
            raise ValueError(f"{onnx} has {name} fixed to {fixed}, asked for {shapes}; export it without --fixed")
    profile = builder.create_optimization_profile()
    full = [(shape[0], 3, *shape[1:]) for shape in (shapes.smallest, shapes.best, shapes.largest)]
    profile.set_shape("image", *full)
    config.add_optimization_profile(profile)


def _make_monitor(trt: TrtObject, progress: Progress) -> TrtObject:
    """A trt.IProgressMonitor that converts nested phases to one increasing share, and stops the build on request."""

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
            except BaseException as error:  # must not pass through TensorRT; raised after the build
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
