"""OnnxRunner: what it gives, and every way in which a file is refused."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from core.errors import EngineError, ModelError
from engine.onnx_runner import OnnxRunner, usable_cores
from engine.runner import Heads
from tests.pipeline.onnx_models import blob_spec, write_blob_model


@pytest.fixture
def path(tmp_path):
    return write_blob_model(tmp_path / "blobs.onnx")


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("shape", [(1, 64, 64), (2, 64, 128), (1, 192, 64)])
def test_heads_have_the_specs_shapes_and_type(tmp_path, precision, shape):
    n, h, w = shape
    spec = blob_spec(precision=precision)
    with OnnxRunner(write_blob_model(tmp_path / "a.onnx", spec)) as runner:
        assert (runner.spec, runner.engine, runner.batch) == (spec, "onnxruntime", None)
        heads = runner.infer(np.ones((n, 3, h, w), precision.replace("fp", "float")))
    assert heads.heatmaps.shape == (n, 17, h // 2, w // 2)
    assert heads.tags.shape == (n, 17, h // 4, w // 4)
    assert heads.heatmaps.dtype == heads.tags.dtype == np.dtype("float32")
    assert heads.heatmaps == pytest.approx(1)
    assert heads.tags == pytest.approx(10)


def test_a_fixed_model_runs_at_its_shape_only(tmp_path):
    with OnnxRunner(write_blob_model(tmp_path / "a.onnx", blob_spec(fixed_hw=(64, 128)))) as runner:
        assert runner.batch == 1
        assert runner.infer(np.zeros((1, 3, 64, 128), np.float32)).tags.shape == (1, 17, 16, 32)
        with pytest.raises(EngineError, match=r"failed on an input \(1, 3, 64, 64\): "):
            runner.infer(np.zeros((1, 3, 64, 64), np.float32))


def test_the_result_does_not_depend_on_threads(path):
    images = np.random.default_rng(0).normal(size=(1, 3, 128, 64)).astype(np.float32)
    one, two = OnnxRunner(path, threads=1), OnnxRunner(path, threads=2)
    np.testing.assert_allclose(one.infer(images).heatmaps, two.infer(images).heatmaps, atol=1e-6)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_passes_side_by_side_give_what_one_gives(tmp_path, precision):
    """Eight passes on eight pictures from two threads, each into arrays of its own."""
    spec = blob_spec(precision=precision)
    pictures = np.random.default_rng(0).random((8, 1, 3, 128, 64)).astype(spec.input_dtype)
    with OnnxRunner(write_blob_model(tmp_path / "a.onnx", spec), threads=2) as runner, ThreadPoolExecutor(2) as threads:
        assert runner.concurrency == 2
        found = [Heads(np.empty((1, 17, 64, 32), np.float32), np.empty((1, 17, 32, 16), np.float32)) for _ in pictures]
        list(threads.map(runner.infer_into, pictures, found))
        for picture, heads in zip(pictures, found, strict=True):
            for got, expected in zip(heads, runner.infer(picture), strict=True):
                np.testing.assert_allclose(got, expected, atol=1e-6)


def test_a_pass_into_arrays_of_another_shape_is_refused(path):
    heads = Heads(np.empty((1, 17, 64, 32), np.float32), np.empty((1, 17, 32, 16), np.float32))
    with (
        OnnxRunner(path) as runner,
        pytest.raises(EngineError, match=r"failed on an input \(1, 3, 64, 64\)"),
    ):
        runner.infer_into(np.zeros((1, 3, 64, 64), np.float32), heads)


@pytest.mark.parametrize(
    "images", [np.zeros((1, 3, 64, 64)), np.zeros((3, 64, 64), np.float32), np.zeros((1, 4, 64, 64), np.float32)]
)
def test_wrong_images_are_refused(path, images):
    with OnnxRunner(path) as runner, pytest.raises(ValueError, match=r"images are .*; expected float32 \(N, 3, H, W\)"):
        runner.infer(images)


@pytest.mark.parametrize("content", [b"", b"no model at all\n" * 50, bytes(range(256)) * 100])
def test_noise_is_no_model_and_onnxruntime_is_silent(tmp_path, content, capfd):
    path = tmp_path / "noise.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"noise\.onnx is no readable ONNX model: .*; export it again") as caught:
        OnnxRunner(path)
    assert "\n" not in str(caught.value)
    assert "ONNXRuntimeError" not in str(caught.value)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_a_truncated_model_is_refused(path, share, capfd):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ModelError, match="is no readable ONNX model"):
        OnnxRunner(path)
    assert capfd.readouterr().err == ""


def test_a_missing_file_and_a_foreign_model_say_what_to_do(tmp_path):
    with pytest.raises(ModelError, match=r"none\.onnx does not exist; expected an ONNX file made by python -m export"):
        OnnxRunner(tmp_path / "none.onnx")
    with pytest.raises(ModelError, match=r"carries no model spec .*; make it with python -m export"):
        OnnxRunner(write_blob_model(tmp_path / "foreign.onnx", metadata=False))


def test_a_model_that_is_not_what_its_spec_says_is_refused(tmp_path):
    names = write_blob_model(tmp_path / "names.onnx", outputs=("maps", "tags"))
    joints = write_blob_model(tmp_path / "joints.onnx", blob_spec(joint_set="crowdpose"))
    with pytest.raises(ModelError, match=r"outputs \['maps', 'tags'\]; expected image and heatmaps, tags"):
        OnnxRunner(names)
    with pytest.raises(ModelError, match=r"heatmaps has 17 channels; its spec says 14 joints"):
        OnnxRunner(joints)


def test_a_spec_of_another_version_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("core.spec.FORMAT", 99)
    path = write_blob_model(tmp_path / "a.onnx")
    monkeypatch.undo()
    with pytest.raises(ModelError, match="model spec has format 99, this version reads 1; export the model again"):
        OnnxRunner(path)


def test_a_closed_runner_says_so(path):
    runner = OnnxRunner(path)
    runner.close()
    runner.close()
    with pytest.raises(EngineError, match="is closed"):
        runner.infer(np.zeros((1, 3, 64, 64), np.float32))


def test_threads_are_those_this_process_may_use(path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 3, 5}, raising=False)
    assert usable_cores() == 3
    assert OnnxRunner(path, threads=1).threads == 1


def test_nothing_is_reported_to_anyone(path, tmp_path):
    """onnxruntime keeps a device id and a queue of events in the cache folder unless telemetry is off."""
    cache = tmp_path / "cache"
    cache.mkdir()
    program = f"from pathlib import Path; from engine.onnx_runner import OnnxRunner; OnnxRunner(Path({str(path)!r}))"
    environment = {name: value for name, value in os.environ.items() if name not in ("CI", "ORT_DISABLE_TELEMETRY")}
    places = dict.fromkeys(("XDG_CACHE_HOME", "HOME", "LOCALAPPDATA"), str(cache))
    subprocess.run([sys.executable, "-c", program], check=True, env=environment | places, timeout=60)
    assert not [found for found in cache.rglob("*") if "onnxruntime" in found.name]


def test_a_missing_onnxruntime_is_named(path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(EngineError, match=r"onnxruntime cannot be loaded .*; pip install onnxruntime"):
        OnnxRunner(path)
