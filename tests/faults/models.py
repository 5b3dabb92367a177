"""Models, checkpoints and plans: damaged, foreign, of other shapes, with weights or a spec that lie."""

from __future__ import annotations

import json
import os
import pickle
import random
import struct
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from core.spec import METADATA_KEY
from tests.faults import damage
from tests.faults.case import Case, Command
from tests.pipeline.onnx_models import blob_spec, write_blob_model

TINY = Path(__file__).resolve().parents[2] / "models"
DAMAGES = (*damage.ANY_FILE, damage.flipped_in_the_tail, damage.told_twice)


def run_with(model: Path, folder: Path, *options: str, **changes: Any) -> Command:
    clip = Path(os.environ["FAULTS_SHARED"]) / "clip.mp4"
    lines = folder / "out.jsonl"
    return Command(
        argv=[str(clip), "--limit", "3", "--json", str(lines), "--model", str(model), *options],
        outputs=(lines,),
        inputs=(model,),
        **changes,
    )


def damaged(source: Callable[[Path], bytes], suffix: str, how: damage.Damage, **changes: Any) -> Callable[..., Command]:
    def make(folder: Path, rng: random.Random) -> Command:
        path = folder / f"bad{suffix}"
        path.write_bytes(how(source(folder), rng))
        # weights are exported before they run, by torch, which is not imported beforehand
        return run_with(path, folder, limit_s=150 if suffix == ".safetensors" else 60, **changes)

    return make


def blobs(folder: Path) -> bytes:
    return write_blob_model(folder / "whole.onnx").read_bytes()


def changed(**changes: Any) -> Callable[[Path, random.Random], Command]:
    """Blobs by other arguments of write_blob_model; "spec" changes what the metadata says."""

    def make(folder: Path, rng: random.Random) -> Command:
        arguments = dict(changes)
        statuses = arguments.pop("statuses", (1, 2))
        return run_with(write_blob_model(folder / "bad.onnx", **arguments), folder, statuses=statuses)

    return make


def saying(text: str) -> Callable[[Path, random.Random], Command]:
    """The metadata holds this text in place of a spec."""

    def make(folder: Path, rng: random.Random) -> Command:
        path = write_blob_model(folder / "bad.onnx")
        model = onnx.load(path)
        helper.set_model_props(model, {METADATA_KEY: text})
        path.write_bytes(model.SerializeToString())
        return run_with(path, folder, statuses=(1, 2))

    return make


def spec_with(**changes: Any) -> str:
    return json.dumps({"format": 1, **asdict(blob_spec()), **changes})


def weights(value: float) -> Callable[[Path, random.Random], Command]:
    """Every weight is `value`: NaN or infinite maps are frames without people, not a failure."""

    def make(folder: Path, rng: random.Random) -> Command:
        path = write_blob_model(folder / "bad.onnx")
        model = onnx.load(path)
        for tensor in model.graph.initializer:
            tensor.CopyFrom(numpy_helper.from_array(np.full_like(numpy_helper.to_array(tensor), value), tensor.name))
        path.write_bytes(model.SerializeToString())
        return run_with(path, folder, statuses=(0,))

    return make


def plan(name: str) -> Callable[[Path, random.Random], Command]:
    """A plan needs a GPU, of which there is none in a test; what lies beside it is read before."""

    def make(folder: Path, rng: random.Random) -> Command:
        path = folder / "bad.plan"
        path.write_bytes(rng.randbytes(4000))
        sidecar = {
            "format": 1,
            "flavor": "tensorrt-rtx",
            "version": "1.7",
            "gpu": "portable",
            "compute_capability": "portable",
            "onnx": "a.onnx",
            "onnx_sha256": "0" * 64,
            "plan_sha256": "0" * 64,
            "shapes": "1x128x192",
            "spec": json.loads(blob_spec().to_json()),
            "built_at": "2026-01-01T00:00:00Z",
        }
        text: str | bytes = json.dumps(sidecar)
        match name:
            case "without a sidecar":
                return run_with(path, folder, statuses=(2,), words="bad.plan.json cannot be read")
            case "a sidecar of noise":
                text = rng.randbytes(300)
            case "an empty sidecar":
                text = ""
            case "a sidecar that is a list":
                text = "[]"
            case "a sidecar of another format":
                text = json.dumps({**sidecar, "format": 99})
            case "shapes of nothing":
                text = json.dumps({**sidecar, "shapes": "0x0x0"})
            case "shapes that are a number":
                text = json.dumps({**sidecar, "shapes": 5})
            case "a spec that lies":
                text = json.dumps({**sidecar, "spec": {"format": 1, "name": "x", "joint_set": "octopus"}})
            case "a flavor of nobody":
                text = json.dumps({**sidecar, "flavor": "vanilla"})
            case "a million brackets":
                text = "[" * 1_000_000
        (folder / "bad.plan.json").write_bytes(text if isinstance(text, bytes) else text.encode())
        return run_with(path, folder, statuses=(2,))

    return make


class _Payload:
    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, ("executed",))


def checkpoint(name: str) -> Callable[[Path, random.Random], Command]:
    def make(folder: Path, rng: random.Random) -> Command:
        suffix = ".safetensors" if "tensors" in name else ".pth"
        path = folder / f"bad{suffix}"
        match name:
            case "pickled code":
                path.write_bytes(pickle.dumps(_Payload(), protocol=2))
            case "a pickled list":
                path.write_bytes(pickle.dumps([1, 2, 3], protocol=2))
            case "noise":
                path.write_bytes(rng.randbytes(5000))
            case "nothing":
                path.write_bytes(b"")
            case "safetensors of noise":
                path.write_bytes(rng.randbytes(5000))
            case "safetensors with a header of exabytes":
                path.write_bytes(struct.pack("<Q", 2**62) + b"{}")
            case "safetensors of nobody":
                head = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
                path.write_bytes(struct.pack("<Q", len(head)) + head + bytes(4))
        return run_with(path, folder, statuses=(2,))

    return make


def cases() -> Iterator[Case]:
    for how in DAMAGES:
        for seed in range(3 if how in (damage.flipped, damage.lying, damage.cut) else 1):
            yield Case("models", f"onnx {how.__name__} {seed}", damaged(blobs, ".onnx", how))
    for how in (damage.cut, damage.flipped_in_the_header, damage.zeroed):
        name = f"tiny.onnx {how.__name__}"
        yield Case("models", name, damaged(lambda folder: (TINY / "tiny.onnx").read_bytes(), ".onnx", how))
        name = f"tiny.safetensors {how.__name__}"
        yield Case(
            "models", name, damaged(lambda folder: (TINY / "tiny.safetensors").read_bytes(), ".safetensors", how)
        )
    for joints in (1, 14, 18, 133):
        yield Case("models", f"{joints} joints, said to be 17", changed(joints=joints))
    yield Case("models", "no metadata", changed(metadata=False, statuses=(2,)))
    yield Case("models", "outputs of other names", changed(outputs=("a", "b")))
    yield Case("models", "outputs that are exchanged", changed(outputs=("tags", "heatmaps")))
    for name, value in (("NaN", np.nan), ("infinite", np.inf), ("huge", 3e38), ("zero", 0.0), ("negative", -1.0)):
        yield Case("models", f"weights that are {name}", weights(value))
    specs = {
        "nothing": "",
        "a number": "5",
        "a list": "[]",
        "brackets": "[" * 5000,
        "no format": '{"name": "x"}',
        "noise": "\x00\x01{",
        "an unknown field": spec_with(colour="blue"),
        "a joint set of nobody": spec_with(joint_set="octopus"),
        "14 joints of another set": spec_with(joint_set="crowdpose"),
        "a side of 0": spec_with(short_side=0),
        "a side of 65": spec_with(short_side=65),
        "a side of a million": spec_with(short_side=64 * 20_000),
        "a side that is text": spec_with(short_side="128"),
        "a fixed size of 0": spec_with(fixed_hw=[0, 0]),
        "a fixed size of one": spec_with(fixed_hw=[64]),
        "a mean of NaN": spec_with(mean=[float("nan")] * 3),
        "a mean of two": spec_with(mean=[0.0, 0.0]),
        "a mean of text": spec_with(mean=["a", "b", "c"]),
        "a std of 0": spec_with(std=[0.0, 1.0, 1.0]),
        "a precision of nobody": spec_with(precision="fp8"),
        "half precision": spec_with(precision="fp16"),
        "two tag dimensions": spec_with(tag_dims=2),
        "a name of megabytes": spec_with(name="x" * 100_000),
        "a name that is null": spec_with(name=None),
    }
    for name, text in specs.items():
        yield Case("models", f"a spec with {name}", saying(text))
    for name in (
        "without a sidecar",
        "a sidecar of noise",
        "an empty sidecar",
        "a sidecar that is a list",
        "a sidecar of another format",
        "shapes of nothing",
        "shapes that are a number",
        "a spec that lies",
        "a flavor of nobody",
        "a million brackets",
        "no gpu",
    ):
        yield Case("plans", name, plan(name))
    for name in (
        "pickled code",
        "a pickled list",
        "noise",
        "nothing",
        "safetensors of noise",
        "safetensors with a header of exabytes",
        "safetensors of nobody",
    ):
        yield Case("checkpoints", name, checkpoint(name))
