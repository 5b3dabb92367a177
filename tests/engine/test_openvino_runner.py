"""OpenVinoRunner: what it gives, how it keeps compiled models, and every way in which a file or device is refused."""

from __future__ import annotations

import logging
import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from core.errors import EngineError, ModelError
from engine.onnx_runner import OnnxRunner, usable_cores
from engine.openvino_cache import CompiledCache
from engine.openvino_runner import OpenVinoRunner
from engine.runner import Heads
from export.zoo import MODELS_FOLDER
from tests.pipeline.onnx_models import blob_spec, write_blob_model

pytest.importorskip("openvino")

TINY = MODELS_FOLDER / "tiny.onnx"


def heads_for(n: int, h: int, w: int) -> Heads:
    return Heads(np.empty((n, 17, h // 2, w // 2), np.float32), np.empty((n, 17, h // 4, w // 4), np.float32))


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("shape", [(1, 64, 64), (2, 64, 128), (1, 192, 64)])
def test_heads_are_those_of_onnxruntime(tmp_path, precision, shape):
    n, h, w = shape
    path = write_blob_model(tmp_path / "a.onnx", blob_spec(precision=precision), spread=1)
    values = np.random.default_rng(0).integers(0, 256, (n, 3, h, w)) / 256  # exact in bf16, in which a cast may run
    images = values.astype(precision.replace("fp", "float"))
    with OpenVinoRunner(path) as runner, OnnxRunner(path) as other:
        got, expected = runner.infer(images), other.infer(images)
        assert (runner.batch, runner.spec) == (None, other.spec)
        for one, two in zip(got, expected, strict=True):
            assert (one.shape, str(one.dtype)) == (two.shape, "float32")
            np.testing.assert_allclose(one, two, atol=1e-5)


def test_the_bundled_models_heads_are_those_of_onnxruntime():
    images = np.random.default_rng(0).normal(size=(1, 3, 128, 192)).astype(np.float32)
    with OpenVinoRunner(TINY) as runner, OnnxRunner(TINY) as other:
        got, expected = runner.infer(images), other.infer(images)
        bf16 = runner.precision == "bf16"
    # worst measured in FP32: 2e-7 and 5e-6
    np.testing.assert_allclose(got.heatmaps, expected.heatmaps, atol=0.06 if bf16 else 1e-5)
    np.testing.assert_allclose(got.tags, expected.tags, atol=0.3 if bf16 else 1e-4)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_passes_side_by_side_give_what_one_gives(tmp_path, precision):
    """Twelve passes, of two shapes, from three threads, each into arrays of its own."""
    spec = blob_spec(precision=precision)
    shapes = [(1, 128, 64) if i % 3 else (1, 64, 64) for i in range(12)]
    rng = np.random.default_rng(0)
    pictures = [rng.random((n, 3, h, w)).astype(spec.input_dtype) for n, h, w in shapes]
    found = [heads_for(*shape) for shape in shapes]
    path = write_blob_model(tmp_path / "a.onnx", spec)
    with OpenVinoRunner(path, threads=3) as runner, ThreadPoolExecutor(3) as threads:
        assert runner.concurrency == 3
        list(threads.map(runner.infer_into, pictures, found))
        for picture, heads in zip(pictures, found, strict=True):
            for got, expected in zip(heads, runner.infer(picture), strict=True):
                np.testing.assert_allclose(got, expected, atol=1e-6)


@pytest.mark.parametrize("concurrent", [False, True])
def test_batches_of_any_size_take_one_compiled_model(path, concurrent):
    """With as many live sources as there are, each number of frames comes up sooner or later."""
    rng = np.random.default_rng(0)
    with OpenVinoRunner(path, threads=2) as runner:
        for n in (3, 5, 2, 4, 8):
            images = rng.random((n, 3, 64, 128)).astype(np.float32)
            into = heads_for(n, 64, 128)
            got = into if concurrent else runner.infer(images)
            if concurrent:
                runner.infer_into(images, into)
            assert [len(head) for head in got] == [n, n]
            for i in range(n):
                alone = heads_for(1, 64, 128)
                runner.infer_into(images[i : i + 1], alone)
                for one, each in zip(alone, got, strict=True):
                    np.testing.assert_array_equal(each[i : i + 1], one)
        assert len(runner._compiled) == 1


@pytest.mark.parametrize(("threads", "concurrency", "streams"), [(None, 1, 1), (1, 1, 1), (2, 2, 2), (8, 4, 4)])
def test_the_cores_are_shared_by_the_passes_at_the_same_time(path, threads, concurrency, streams):
    with OpenVinoRunner(path, threads=threads) as runner:
        assert concurrency in (1, runner.concurrency)
        compiled = runner._compile((1, 64, 64), concurrency)
        assert compiled.get_property("NUM_STREAMS") == min(streams, usable_cores())  # OpenVINO's own limit
        assert not compiled.get_property("ENABLE_CPU_PINNING")
        if threads is not None:
            assert compiled.get_property("INFERENCE_NUM_THREADS") <= threads


def test_what_a_pass_gave_outlives_the_runner(path):
    images = np.ones((1, 3, 64, 64), np.float32)
    with OpenVinoRunner(path) as runner:
        heads = runner.infer(images)
        kept = heads.heatmaps.copy()
    np.testing.assert_array_equal(heads.heatmaps, kept)


def test_a_compiled_model_is_kept_and_taken_again(path, cache, monkeypatch):
    images = np.random.default_rng(0).random((1, 3, 64, 64)).astype(np.float32)
    with OpenVinoRunner(path, cache=cache) as runner:
        first = runner.infer(images).heatmaps.copy()
        runner.infer_into(images, heads_for(1, 64, 64))  # the same file serves both
    assert len(list(cache.folder.iterdir())) == 1
    with OpenVinoRunner(path, cache=cache) as runner:
        monkeypatch.setattr(runner, "_core", NoCompiler(runner._core))
        np.testing.assert_array_equal(runner.infer(images).heatmaps, first)
        with pytest.raises(AssertionError, match="compiled"):
            runner.infer(np.zeros((1, 3, 64, 128), np.float32))


class NoCompiler:
    """A Core that can only take what was compiled before."""

    def __init__(self, core) -> None:
        self.import_model, self.read_model = core.import_model, core.read_model

    def compile_model(self, *_: object) -> None:
        raise AssertionError("compiled")


def test_another_model_is_not_taken_for_the_one_that_was_kept(tmp_path, cache):
    images = np.random.default_rng(0).random((1, 3, 64, 64)).astype(np.float32)
    found = []
    for spread in (0, 1):
        write_blob_model(tmp_path / "a.onnx", spread=spread)
        with OpenVinoRunner(tmp_path / "a.onnx", cache=cache) as runner:
            found.append(runner.infer(images).heatmaps.copy())
    assert len(list(cache.folder.iterdir())) == 2
    assert np.abs(found[0] - found[1]).max() > 0.1


@pytest.mark.parametrize("damage", ["empty", "cut", "zeroed", "noise"])
def test_a_damaged_file_is_made_again(path, cache, damage, caplog):
    images = np.random.default_rng(0).random((1, 3, 64, 64)).astype(np.float32)
    with OpenVinoRunner(path, cache=cache) as runner:
        first = runner.infer(images).heatmaps.copy()
    (file,) = cache.folder.iterdir()
    content = file.read_bytes()
    middle = len(content) // 2
    file.write_bytes(
        {
            "empty": b"",
            "cut": content[:middle],
            "zeroed": content[:middle] + bytes(64) + content[middle + 64 :],
            "noise": np.random.default_rng(1).bytes(len(content)),
        }[damage]
    )
    with OpenVinoRunner(path, cache=cache) as runner:
        np.testing.assert_array_equal(runner.infer(images).heatmaps, first)
    assert "is damaged; it is removed and made again" in caplog.text
    assert file.read_bytes() == content


def test_what_openvino_does_not_take_is_made_again(path, cache):
    images = np.ones((1, 3, 64, 64), np.float32)
    with OpenVinoRunner(path, cache=cache) as runner:
        made_of = *runner._made_of, "f32" if runner.precision == "fp32" else "bf16", (1, 64, 64), None
        cache.write(b"whole, but no model", *made_of)
        assert runner.infer(images).heatmaps.shape == (1, 17, 32, 32)
    assert len(cache.read(*made_of) or b"") > 1000


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="Windows has other permissions")
def test_kept_files_are_for_their_user_alone(cache):
    before = os.umask(0)
    try:
        cache.write(b"abc", 1)
    finally:
        os.umask(before)
    (file,) = cache.folder.iterdir()
    assert (stat.S_IMODE(cache.folder.stat().st_mode), stat.S_IMODE(file.stat().st_mode)) == (0o700, 0o600)
    cache.folder.chmod(0o777)
    assert cache.read(1) == b"abc"
    assert stat.S_IMODE(cache.folder.stat().st_mode) == 0o700


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="Windows has other permissions")
def test_nothing_is_taken_from_another_users_folder(cache, monkeypatch):
    cache.write(b"abc", 1)
    monkeypatch.setattr(os, "getuid", lambda: cache.folder.stat().st_uid + 1)
    assert cache.read(1) is None
    cache.write(b"def", 2)
    assert len(list(cache.folder.iterdir())) == 1


def test_the_oldest_files_go(cache, monkeypatch):
    monkeypatch.setattr("engine.openvino_cache.KEPT_FILES", 2)
    for age, name in enumerate("abc"):
        cache.write(name.encode(), name)
        os.utime(cache._path((name,)), (age, age))
    cache.read("b")  # used again: newer than c
    cache.write(b"d", "d")
    assert [cache.read(name) for name in "abcd"] == [None, b"b", None, b"d"]


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(tmp_path, path):
    (tmp_path / "file").write_bytes(b"")
    with OpenVinoRunner(path, cache=CompiledCache(tmp_path / "file" / "compiled")) as runner:
        assert runner.infer(np.ones((1, 3, 64, 64), np.float32)).tags.shape == (1, 17, 16, 16)


@pytest.mark.parametrize("device", ["GPU", "NPU"])
def test_a_device_that_is_not_here_is_named(path, device):
    import openvino

    if any(name.startswith(device) for name in openvino.Core().available_devices):
        pytest.skip(f"this machine has a {device}")
    with pytest.raises(EngineError, match=f"device {device} is not here: OpenVINO sees CPU; .* --device CPU"):
        OpenVinoRunner(path, device=device)
    with pytest.raises(ValueError, match="device is 'gpu'; expected one of CPU, GPU, NPU"):
        OpenVinoRunner(path, device="gpu")


@pytest.mark.parametrize(
    "images",
    [np.zeros((1, 3, 64, 64)), np.zeros((3, 64, 64), np.float32), np.zeros((0, 3, 64, 64), np.float32)],
    ids=["type", "rank", "none"],
)
def test_other_images_are_refused(path, images):
    with OpenVinoRunner(path) as runner, pytest.raises(ValueError, match=r"expected float32 \(N, 3, H, W\)"):
        runner.infer(images)


def test_a_fixed_model_takes_its_own_size(tmp_path):
    with OpenVinoRunner(write_blob_model(tmp_path / "a.onnx", blob_spec(fixed_hw=(64, 128)))) as runner:
        assert runner.batch == 1
        assert runner.infer(np.zeros((1, 3, 64, 128), np.float32)).tags.shape == (1, 17, 16, 32)
        with pytest.raises(EngineError, match=r"takes \[1,3,64,128\], got 1x3x64x64"):
            runner.infer(np.zeros((1, 3, 64, 64), np.float32))


def test_a_pass_into_arrays_of_another_shape_is_refused(path):
    with OpenVinoRunner(path) as runner, pytest.raises(EngineError, match=r"failed on an input \(1, 3, 64, 64\)"):
        runner.infer_into(np.zeros((1, 3, 64, 64), np.float32), heads_for(1, 128, 64))


def test_a_batch_that_fails_halfway_waits_for_what_it_began(path):
    """The last picture has no place in the outputs; the passes of the others write into them until they end."""
    images = np.random.default_rng(0).random((3, 3, 64, 64)).astype(np.float32)
    heads, alone = heads_for(2, 64, 64), heads_for(1, 64, 64)
    with OpenVinoRunner(path, threads=1) as runner:
        with pytest.raises(EngineError, match=r"failed on an input \(1, 3, 64, 64\)") as raised:
            runner.infer_into(images, heads)
        assert raised.value.__context__ is raised.value.__cause__, "waiting failed as well"
        for n in range(2):
            runner.infer_into(images[n : n + 1], alone)
            np.testing.assert_array_equal(heads.heatmaps[n], alone.heatmaps[0])


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.9])
def test_a_truncated_model_is_refused(path, share, capfd):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ModelError) as caught:
        OpenVinoRunner(path)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


def test_a_missing_file_and_foreign_models_say_what_to_do(tmp_path):
    with pytest.raises(ModelError, match=r"none\.onnx does not exist; expected an ONNX file made by python -m export"):
        OpenVinoRunner(tmp_path / "none.onnx")
    with pytest.raises(ModelError, match="python -m export"):
        OpenVinoRunner(write_blob_model(tmp_path / "foreign.onnx", metadata=False))
    with pytest.raises(ModelError, match=r"has the tensors image, maps, tags; expected image and heatmaps, tags"):
        OpenVinoRunner(write_blob_model(tmp_path / "names.onnx", outputs=("maps", "tags")))
    with pytest.raises(ModelError, match="heatmaps has 17 channels; its spec says 14 joints"):
        OpenVinoRunner(write_blob_model(tmp_path / "joints.onnx", blob_spec(joint_set="crowdpose")))


def test_a_closed_runner_says_so(path):
    runner = OpenVinoRunner(path)
    runner.close()
    runner.close()
    with pytest.raises(EngineError, match="is closed"):
        runner.infer(np.zeros((1, 3, 64, 64), np.float32))


def test_compiled_models_of_many_shapes_do_not_pile_up(path, monkeypatch, caplog):
    monkeypatch.setattr("engine.openvino_runner.MAX_SHAPES", 2)
    with OpenVinoRunner(path) as runner, caplog.at_level(logging.INFO):
        for side in (64, 128, 64, 192, 64):
            runner.infer(np.zeros((1, 3, side, 64), np.float32))
        assert [shape for shape, _ in runner._compiled] == [(1, 192, 64), (1, 64, 64)]


def test_a_missing_openvino_is_named(path, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "openvino"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [NoOpenVino(), *sys.meta_path])
    with pytest.raises(EngineError, match=r"openvino cannot be loaded .*; pip install openvino"):
        OpenVinoRunner(path)


class NoOpenVino:
    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name == "openvino":
            raise ModuleNotFoundError("No module named 'openvino'", name=name)


def test_nothing_is_reported_to_anyone(path, tmp_path):
    """Its telemetry keeps a client's id in the home folder, from its first import on, unless it is off."""
    home = tmp_path / "home"
    home.mkdir()
    program = (
        "from pathlib import Path; from engine.openvino_runner import OpenVinoRunner; import sys; "
        f"OpenVinoRunner(Path({str(path)!r})); assert 'openvino_telemetry' not in sys.modules"
    )
    environment = {name: value for name, value in os.environ.items() if name not in ("CI", "TF_BUILD", "JENKINS_URL")}
    places = dict.fromkeys(("XDG_CACHE_HOME", "HOME", "LOCALAPPDATA"), str(home))
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", program], check=True, env=environment | places, cwd=root, timeout=60)
    assert [found for found in home.rglob("*") if found.is_file()] == []


def test_a_signal_after_a_runner_went_in_another_thread_is_a_signal():
    """The CPU plugin frees the first thread's stack for signals with its last Core."""
    program = (
        "import gc, os, signal, sys, threading\n"
        "from engine.openvino_runner import OpenVinoRunner\n"
        "from pathlib import Path\n"
        "runners = [OpenVinoRunner(Path(sys.argv[1]))]\n"
        "import numpy as np\n"
        "runners[0].infer(np.zeros((1, 3, 64, 64), np.float32))\n"
        "def end():\n"
        "    runners.pop().close()\n"
        "    gc.collect()\n"
        "thread = threading.Thread(target=end); thread.start(); thread.join()\n"
        "signal.signal(signal.SIGTERM, lambda *_: print('a signal'))\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(TINY)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "a signal\n"), done.stderr
