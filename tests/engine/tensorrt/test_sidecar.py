"""What a plan's sidecar says, and every way in which a plan is refused."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import pytest

from core.errors import EngineError, EngineMismatch
from core.spec import ModelSpec
from engine.gpu import Gpu
from engine.shapes import ShapeRange
from engine.tensorrt.sidecar import Sidecar, read_plan, read_sidecar, sidecar_path, write_plan

PLAN = b"a serialised engine"
H100 = Gpu("NVIDIA H100", (9, 0), 80 << 30, (13, 0))
TURING = Gpu("Tesla T4", (7, 5), 16 << 30, (13, 0))
SIDECAR = Sidecar(
    flavor="tensorrt",
    version="10.16.1",
    gpu="NVIDIA H100",
    compute_capability="9.0",
    onnx="models/w32.onnx",
    onnx_sha256="ab" * 32,
    plan_sha256=hashlib.sha256(PLAN).hexdigest(),
    shapes=ShapeRange.static((1, 512, 704)),
    spec=ModelSpec(name="w32-512", precision="fp16"),
    built_at="2026-01-02T03:04:05+00:00",
)
PORTABLE = replace(SIDECAR, flavor="tensorrt-rtx", version="1.7.1", gpu="portable", compute_capability="portable")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "w32.plan"


def test_a_plan_comes_back_with_its_sidecar(path):
    write_plan(path, PLAN, SIDECAR)
    assert read_plan(path, version="10.16.1", flavor="tensorrt", gpu=H100) == (PLAN, SIDECAR)
    assert sorted(file.name for file in path.parent.iterdir()) == ["w32.plan", "w32.plan.json"]


def test_a_range_of_shapes_comes_back(path):
    ranged = replace(PORTABLE, shapes=ShapeRange.parse("1x256x256:1x512x704:4x1024x1024"))
    write_plan(path, PLAN, ranged)
    assert read_sidecar(path) == ranged
    assert "--dynamic 1x256x256:1x512x704:4x1024x1024" in ranged.rebuild_command(path)


def test_a_portable_plan_runs_on_newer_gpus(path):
    write_plan(path, PLAN, PORTABLE)
    for gpu in (H100, None):
        assert read_plan(path, version="1.7.1", flavor="tensorrt-rtx", gpu=gpu)[0] == PLAN
    with pytest.raises(
        EngineMismatch, match=r"from compute capability 8\.0 on, Tesla T4 has 7\.5; on this machine rebuild it: "
    ):
        read_plan(path, version="1.7.1", flavor="tensorrt-rtx", gpu=TURING)


def test_a_plan_for_one_compute_capability_runs_on_any_gpu_of_it(path):
    write_plan(path, PLAN, replace(PORTABLE, compute_capability="7.5"))
    for gpu in (TURING, replace(TURING, name="NVIDIA GeForce RTX 2080"), None):
        assert read_plan(path, version="1.7.1", flavor="tensorrt-rtx", gpu=gpu)[0] == PLAN
    message = r"for any GPU \(compute capability 7\.5\), this is NVIDIA H100 \(9\.0\); rebuild it: "
    with pytest.raises(EngineMismatch, match=message):
        read_plan(path, version="1.7.1", flavor="tensorrt-rtx", gpu=H100)


@pytest.mark.parametrize(
    ("flavor", "version", "gpu", "message"),
    [
        ("tensorrt", "11.0.0", H100, r"was built by tensorrt 10\.16\.1, this is tensorrt 11\.0\.0"),
        ("tensorrt-rtx", "1.7.1", H100, r"this is tensorrt-rtx 1\.7\.1; install tensorrt, or rebuild"),
        (
            "tensorrt",
            "10.16.1",
            TURING,
            r"for NVIDIA H100 \(compute capability 9\.0\), this is Tesla T4 \(7\.5\)",
        ),
    ],
)
def test_a_foreign_plan_is_refused_with_the_command_that_rebuilds_it(flavor, version, gpu, message, path):
    write_plan(path, PLAN, SIDECAR)
    with pytest.raises(EngineMismatch, match=message) as caught:
        read_plan(path, version=version, flavor=flavor, gpu=gpu)
    command = f"python -m engine models/w32.onnx --flavor tensorrt --shape 1x512x704 --out {path}"
    assert command in str(caught.value)


def test_a_plan_that_is_not_the_sidecars_is_refused(path):
    write_plan(path, PLAN, SIDECAR)
    for damaged in (b"", PLAN[:-1], PLAN + b"x", b"something else"):
        path.write_bytes(damaged)
        with pytest.raises(EngineError, match=r"is damaged: .*rebuild it: python -m engine"):
            read_plan(path, version="10.16.1", flavor="tensorrt", gpu=H100)
    path.unlink()
    with pytest.raises(EngineError, match="cannot be read"):
        read_plan(path, version="10.16.1", flavor="tensorrt", gpu=H100)


def test_a_plan_without_sidecar_is_refused(path):
    path.write_bytes(PLAN)
    with pytest.raises(EngineError, match="opened only with its sidecar; build it again: python -m engine"):
        read_plan(path, version="10.16.1", flavor="tensorrt", gpu=H100)


@pytest.mark.parametrize(
    "change",
    [
        lambda raw: {},
        lambda raw: [],
        lambda raw: raw | {"format": 2},
        lambda raw: raw | {"more": 1},
        lambda raw: {key: value for key, value in raw.items() if key != "gpu"},
        lambda raw: raw | {"shapes": "1x2x3"},
        lambda raw: raw | {"shapes": 7},
        lambda raw: raw | {"spec": {}},
        lambda raw: raw | {"flavor": "trt"},
    ],
)
def test_a_damaged_sidecar_is_one_line(change, path):
    write_plan(path, PLAN, SIDECAR)
    sidecar_path(path).write_text(json.dumps(change(json.loads(SIDECAR.to_json()))))
    with pytest.raises(EngineError, match="is damaged: not a plan's sidecar") as caught:
        read_sidecar(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"{", b"null", b"\x80" * 100])
def test_a_sidecar_of_noise_is_one_line(content, path):
    write_plan(path, PLAN, SIDECAR)
    sidecar_path(path).write_bytes(content)
    with pytest.raises(EngineError, match="is damaged"):
        read_sidecar(path)


def test_an_unwritable_place_is_one_line(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(EngineError, match=r"cannot be written: .*choose another place"):
        write_plan(tmp_path / "file" / "w32.plan", PLAN, SIDECAR)
