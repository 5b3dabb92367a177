"""Plans on disk: build one with a sidecar that describes it, or find it in the cache that run_video.py uses."""

from __future__ import annotations

import hashlib
import json
import logging
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path

from core.errors import EngineError, ModelError
from core.files import cache_folder, locked
from core.progress import Progress, unseen
from core.spec import SIDE_MULTIPLE, ModelSpec
from engine.device import Device
from engine.onnx_file import read_spec, sha256_of
from engine.shapes import Shape, ShapeRange
from engine.tensorrt.compiler import compile_plan
from engine.tensorrt.flavor import PORTABLE, Flavor, build_target, load_tensorrt, pick_flavor
from engine.tensorrt.sidecar import Sidecar, read_sidecar, write_plan

logger = logging.getLogger(__name__)

RECIPE = 2  # increase it when the same ONNX file gives another plan; 2: TensorRT-RTX plans can be captured


def build_plan(
    onnx: str | Path,
    out: str | Path,
    *,
    flavor: Flavor | None = None,
    shapes: ShapeRange | Shape | None = None,
    progress: Progress = unseen,
    device: Device | None = None,
) -> Path:
    """A plan at `out`, with its sidecar beside it; returns the path. Both files are complete or absent.

    onnx: a file made by python -m export. flavor: by default as `pick_flavor`. shapes: (N, H, W) for a static plan,
    or a range; by default static, for one frame of 4:3. device: the plan is for its GPU, by default the
    first. Raises ModelError for a file that cannot be read or parsed, ValueError for shapes the model does not accept,
    EngineError if TensorRT or the GPU is missing or the build fails.
    """
    onnx, out = Path(onnx), Path(out)
    flavor = flavor or pick_flavor()
    spec = read_spec(onnx)
    wanted = _range(shapes, spec)
    trt = load_tensorrt(flavor)
    gpu, compute_capability = build_target(flavor, 0 if device is None else device.index)
    try:
        onnx_sha256 = sha256_of(onnx)
    except OSError as error:
        raise ModelError(f"{onnx} cannot be read: {error.strerror or error}") from error
    # TensorRT-RTX measures no timings here: it compiles on the device in the first run.
    timings = None if flavor == "tensorrt-rtx" else _timings(flavor, trt.__version__, gpu)
    named = flavor == "tensorrt-rtx" and compute_capability != PORTABLE
    target = "SM" + compute_capability.replace(".", "") if named else None
    plan = compile_plan(
        trt,
        onnx,
        spec,
        wanted,
        timing_cache=timings,
        progress=progress,
        target=target,
        within=nullcontext if device is None else device.current,
    )
    sidecar = Sidecar(
        flavor=flavor,
        version=trt.__version__,
        gpu=gpu,
        compute_capability=compute_capability,
        onnx=str(onnx),
        onnx_sha256=onnx_sha256,
        plan_sha256=hashlib.sha256(plan).hexdigest(),
        shapes=wanted,
        spec=spec,
        built_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    write_plan(out, plan, sidecar)
    return out


def cached_plan(
    onnx: str | Path,
    shape_nhw: Shape,
    flavor: Flavor | None = None,
    *,
    folder: Path | None = None,
    progress: Progress = unseen,
    device: Device | None = None,
) -> Path:
    """A static plan of `onnx` for this machine, from `folder` (default: the cache), built there the first time.

    The key is the ONNX file's content, shape, precision, flavour, TensorRT version and GPU. If two processes request
    the same plan at once, one builds and the other waits. Raises what build_plan raises.
    """
    onnx = Path(onnx)
    flavor = flavor or pick_flavor()
    folder = cache_folder("plans") if folder is None else folder
    spec = read_spec(onnx)
    shapes = ShapeRange.static(shape_nhw)
    gpu, compute_capability = build_target(flavor, 0 if device is None else device.index)
    version = load_tensorrt(flavor).__version__
    key = [sha256_of(onnx), str(shapes), spec.precision, flavor, version, gpu, compute_capability, RECIPE]
    digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]
    path = folder / f"{spec.name}-{shapes}-{spec.precision}-{flavor}-{digest}.plan"
    try:
        with locked(path.with_name(path.name + ".lock")):
            if not _is_whole(path):
                logger.info("building %s", path)
                build_plan(onnx, path, flavor=flavor, shapes=shapes, progress=progress, device=device)
    except OSError as error:
        if isinstance(error, EngineError | ModelError):
            raise
        raise EngineError(
            f"{folder} cannot be used for plans: {error.strerror or error}; set XDG_CACHE_HOME"
        ) from error
    return path


def usual_range(spec: ModelSpec) -> ShapeRange:
    """The range for `--dynamic` without a value: batches of 1 to 4, sides from half to twice the model's short side."""
    if spec.fixed_hw is not None:
        return ShapeRange.static((1, *spec.fixed_hw))
    low = max(SIDE_MULTIPLE, spec.short_side // 2 // SIDE_MULTIPLE * SIDE_MULTIPLE)
    high = 2 * spec.short_side
    return ShapeRange((1, low, low), _usual_shape(spec), (4, high, high))


def _usual_shape(spec: ModelSpec) -> Shape:
    """One frame of 4:3: 1x512x704 at a short side of 512."""
    if spec.fixed_hw is not None:
        return (1, *spec.fixed_hw)
    long_side = -(-spec.short_side * 4 // 3 // SIDE_MULTIPLE) * SIDE_MULTIPLE
    return (1, spec.short_side, long_side)


def _range(shapes: ShapeRange | Shape | None, spec: ModelSpec) -> ShapeRange:
    if isinstance(shapes, ShapeRange):
        return shapes
    return ShapeRange.static(_usual_shape(spec) if shapes is None else shapes)


def _is_whole(path: Path) -> bool:
    """Whether the cache holds the plan and its sidecar, both undamaged; all else is in the key, its name."""
    try:
        return read_sidecar(path).plan_sha256 == sha256_of(path)
    except (EngineError, OSError):
        return False


def _timings(flavor: Flavor, version: str, gpu: str) -> Path:
    return cache_folder("timings") / f"{flavor}-{version}-{gpu.replace(' ', '-').replace('/', '-')}.cache"
