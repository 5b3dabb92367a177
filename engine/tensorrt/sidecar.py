"""The sidecar, `model.plan.json` beside a plan: its ONNX file, TensorRT version, GPU and shapes."""

from __future__ import annotations

import hashlib
import json
import shlex
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Self

from core.errors import EngineError, EngineMismatch
from core.files import write_whole
from core.spec import ModelSpec
from engine.gpu import Gpu
from engine.shapes import ShapeRange
from engine.tensorrt.flavor import MODULES, PORTABLE, PORTABLE_FROM, Flavor

FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Sidecar:
    """gpu and compute_capability: as `build_target` returns them. built_at: ISO 8601, UTC."""

    flavor: Flavor
    version: str
    gpu: str
    compute_capability: str
    onnx: str
    onnx_sha256: str
    plan_sha256: str
    shapes: ShapeRange
    spec: ModelSpec
    built_at: str

    def to_json(self) -> str:
        readable = {"shapes": str(self.shapes), "spec": json.loads(self.spec.to_json())}
        return json.dumps({"format": FORMAT, **asdict(self), **readable}, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The sidecar that `to_json` wrote. Raises ValueError for any other text."""
        try:
            raw = json.loads(text)
            if raw.pop("format") != FORMAT or raw.keys() != {field.name for field in fields(cls)}:
                raise ValueError("written by another version")
            raw["shapes"] = ShapeRange.parse(raw["shapes"])
            raw["spec"] = ModelSpec.from_json(json.dumps(raw["spec"]))
            if raw["flavor"] not in MODULES:
                raise ValueError(f"unknown flavor {raw['flavor']!r}")
            return cls(**raw)
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"not a plan's sidecar: {error}") from error

    def rebuild_command(self, plan: Path) -> str:
        shapes = "--shape" if self.shapes.is_static else "--dynamic"
        arguments = (self.onnx, "--flavor", self.flavor, shapes, str(self.shapes), "--out", str(plan))
        return "python -m engine " + shlex.join(arguments)


def sidecar_path(plan: Path) -> Path:
    return plan.with_name(plan.name + ".json")


def write_plan(path: Path, plan: bytes, sidecar: Sidecar) -> None:
    """Write the plan, then its sidecar; a plan without its own sidecar is never opened. Raises EngineError."""
    try:
        write_whole(path, plan, private=True)
        write_whole(sidecar_path(path), sidecar.to_json().encode(), private=True)
    except OSError as error:
        raise EngineError(f"{path} cannot be written: {error.strerror or error}; choose another place") from error


def read_sidecar(plan: Path) -> Sidecar:
    """Raises EngineError if the sidecar is missing or unreadable."""
    path = sidecar_path(plan)
    again = f"build it again: python -m engine model.onnx --out {plan}"
    try:
        return Sidecar.from_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise EngineError(
            f"{path} cannot be read: {error.strerror}; a plan is opened only with its sidecar; {again}"
        ) from error
    except ValueError as error:  # includes bytes that are not text
        raise EngineError(f"{path} is damaged: {error}; {again}") from error


def read_plan(path: Path, *, version: str, flavor: Flavor, gpu: Gpu | None) -> tuple[bytes, Sidecar]:
    """A plan's bytes and sidecar, after a check that they belong together and run here.

    version, flavor: the TensorRT that will run it; gpu: the GPU, None if unknown. Raises EngineError for a missing or
    damaged plan, EngineMismatch for one built elsewhere, with its origin and the command that rebuilds it.
    """
    sidecar = read_sidecar(path)
    rebuild = f"rebuild it: {sidecar.rebuild_command(path)}"
    if (flavor, version) != (sidecar.flavor, sidecar.version):
        raise EngineMismatch(
            f"{path} was built by {sidecar.flavor} {sidecar.version}, this is {flavor} {version}; "
            + (rebuild if flavor == sidecar.flavor else f"install {sidecar.flavor}, or {rebuild}")
        )
    if gpu is not None:
        _check_gpu(path, sidecar, gpu, rebuild)
    try:
        plan = path.read_bytes()
    except OSError as error:
        raise EngineError(f"{path} cannot be read: {error.strerror or error}; {rebuild}") from error
    if hashlib.sha256(plan).hexdigest() != sidecar.plan_sha256:
        raise EngineError(f"{path} is damaged: its bytes are not those its sidecar tells of; {rebuild}")
    return plan, sidecar


def _check_gpu(path: Path, sidecar: Sidecar, gpu: Gpu, rebuild: str) -> None:
    """Raises EngineMismatch if the plan is for another GPU."""
    here, built = gpu.capability, sidecar.compute_capability
    if sidecar.gpu == PORTABLE and built == PORTABLE:
        if gpu.compute_capability < PORTABLE_FROM:
            lowest = ".".join(map(str, PORTABLE_FROM))
            raise EngineMismatch(
                f"{path} runs from compute capability {lowest} on, {gpu.name} has {here}; on this machine {rebuild}"
            )
    elif built != here or sidecar.gpu not in (PORTABLE, gpu.name):
        kind = "any GPU" if sidecar.gpu == PORTABLE else sidecar.gpu
        raise EngineMismatch(
            f"{path} was built for {kind} (compute capability {built}), this is {gpu.name} ({here}); {rebuild}"
        )
