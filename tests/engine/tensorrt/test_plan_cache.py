"""Plans on disk and in the cache; the command. TensorRT-RTX builds for real."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import random
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from unittest import mock

import pytest

from core.errors import EngineError, ModelError
from core.files import write_whole
from core.spec import ModelSpec
from engine.__main__ import main
from engine.gpu import Gpu
from engine.tensorrt import plan_cache as build
from engine.tensorrt.compiler import compile_plan
from engine.tensorrt.flavor import Flavor, pick_flavor
from engine.tensorrt.plan_cache import build_plan, cached_plan, usual_range
from engine.tensorrt.sidecar import read_plan, read_sidecar, sidecar_path

trt = pytest.importorskip("tensorrt_rtx")

RTX: Flavor = "tensorrt-rtx"


def test_a_plan_and_what_it_is(small_onnx, tmp_path):
    path = build_plan(small_onnx, tmp_path / "made" / "small.plan", flavor=RTX)
    sidecar = read_sidecar(path)
    assert (sidecar.flavor, sidecar.version, sidecar.gpu) == (RTX, trt.__version__, "portable")
    assert sidecar.onnx_sha256 == hashlib.sha256(small_onnx.read_bytes()).hexdigest()
    assert sidecar.plan_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert str(sidecar.shapes) == "1x128x192"  # 4:3 at the model's short side
    assert sidecar.spec.precision == "fp16"


def test_the_usual_range_surrounds_the_short_side():
    assert str(usual_range(ModelSpec(name="w32-512"))) == "1x256x256:1x512x704:4x1024x1024"
    assert str(usual_range(ModelSpec(name="tiny", short_side=256))) == "1x128x128:1x256x384:4x512x512"
    assert str(usual_range(ModelSpec(name="least", short_side=64))) == "1x64x64:1x64x128:4x128x128"
    assert str(usual_range(ModelSpec(name="fixed", fixed_hw=(320, 512)))) == "1x320x512"


def test_the_cache_builds_once_and_finds_it_again(small_onnx, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first = cached_plan(small_onnx, (1, 64, 128), RTX)
    assert first.parent == tmp_path / "higherpose" / "plans"
    assert first.name.startswith("small-1x64x128-fp16-tensorrt-rtx-")
    built = first.stat().st_mtime_ns
    assert cached_plan(small_onnx, (1, 64, 128), RTX) == first
    assert first.stat().st_mtime_ns == built


def test_the_cache_knows_plans_apart(small_onnx, tmp_path, monkeypatch):
    made = []

    def fake_build(onnx, out, **options):
        made.append(out)
        return out

    monkeypatch.setattr(build, "build_plan", fake_build)
    copied = tmp_path / "same-name" / small_onnx.name
    copied.parent.mkdir()
    content = small_onnx.read_bytes()

    def ask(shape=(1, 64, 128), flavor=RTX):
        return cached_plan(copied, shape, flavor, folder=tmp_path / "plans")

    copied.write_bytes(content)
    plans = {ask(), ask((2, 64, 128)), ask((1, 128, 128))}
    # A second producer_name field, of the same network: other bytes are another model.
    copied.write_bytes(content + b"\x12\x01x")
    plans.add(ask())
    monkeypatch.setattr(trt, "__version__", "9.9")
    plans.add(ask())
    monkeypatch.setattr(build, "build_target", lambda flavor, index: ("NVIDIA H100", "9.0"))
    plans.add(ask())
    assert len(plans) == len(made) == 6


@pytest.mark.parametrize("damage", ["cut", "sidecar cut", "no sidecar", "stale sidecar"])
def test_a_damaged_plan_in_the_cache_is_built_again(damage, small_onnx, tmp_path):
    path = cached_plan(small_onnx, (1, 64, 64), RTX, folder=tmp_path)
    beside = sidecar_path(path)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:1000])
    elif damage == "sidecar cut":
        beside.write_text(beside.read_text()[:50])
    elif damage == "no sidecar":
        beside.unlink()
    else:
        beside.write_text(json.dumps(json.loads(beside.read_text()) | {"plan_sha256": "0" * 64}))
    assert cached_plan(small_onnx, (1, 64, 64), RTX, folder=tmp_path) == path
    assert read_sidecar(path).plan_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def _ask_for_a_plan(onnx, folder, start, built):
    def counted(*args, **options):
        built.put(1)
        return compile_plan(*args, **options)

    with mock.patch("engine.tensorrt.plan_cache.compile_plan", counted):
        start.wait()
        cached_plan(onnx, (1, 64, 128), RTX, folder=folder)


def test_two_processes_build_a_plan_once(small_onnx, tmp_path):
    context = multiprocessing.get_context("spawn")
    start, built = context.Event(), context.Queue()
    askers = [context.Process(target=_ask_for_a_plan, args=(small_onnx, tmp_path, start, built)) for _ in range(2)]
    for asker in askers:
        asker.start()
    start.set()
    for asker in askers:
        asker.join(120)
    assert [asker.exitcode for asker in askers] == [0, 0]
    assert built.get(timeout=5) == 1
    assert built.empty()
    assert len(list(tmp_path.glob("*.plan"))) == 1


def test_a_failed_build_lets_the_next_one_try(small_onnx, tmp_path, monkeypatch):
    with monkeypatch.context() as broken:
        broken.setattr(build, "compile_plan", _fail)
        with pytest.raises(EngineError, match="no memory"):
            cached_plan(small_onnx, (1, 64, 64), RTX, folder=tmp_path)
    assert not list(tmp_path.glob("*.plan"))
    assert cached_plan(small_onnx, (1, 64, 64), RTX, folder=tmp_path).is_file()


def _fail(*args, **options):
    raise EngineError("no memory")


def test_readers_see_whole_files_while_others_write(tmp_path):
    path = tmp_path / "file"
    contents = [bytes([i]) * 200_000 for i in range(4)]
    write_whole(path, contents[0])
    stop = threading.Event()

    def keep_writing(content):
        while not stop.is_set():
            write_whole(path, content)

    writers = [threading.Thread(target=keep_writing, args=(content,)) for content in contents]
    for writer in writers:
        writer.start()
    seen = [path.read_bytes() for _ in range(200)]
    stop.set()
    for writer in writers:
        writer.join()
    assert set(seen) <= set(contents)
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_tensorrt_is_picked_where_it_is_installed_and_has_a_gpu(monkeypatch):
    gpu = Gpu("NVIDIA H100", (9, 0), 1, (13, 0))
    for installed, found, picked in ((True, gpu, "tensorrt"), (True, None, RTX), (False, gpu, RTX)):
        monkeypatch.setattr("engine.tensorrt.flavor.importlib.util.find_spec", lambda _, there=installed: there or None)
        monkeypatch.setattr("engine.tensorrt.flavor.find_gpu", lambda index=0, found=found: (found, "why"))
        assert pick_flavor() == picked


def test_tensorrt_without_a_gpu_says_what_it_needs(small_onnx, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", trt)
    monkeypatch.setattr("engine.tensorrt.flavor.find_gpu", lambda index=0: (None, "no NVIDIA driver is installed"))
    for ask in (
        lambda: build_plan(small_onnx, tmp_path / "x.plan", flavor="tensorrt"),
        lambda: cached_plan(small_onnx, (1, 64, 64), "tensorrt", folder=tmp_path),
    ):
        with pytest.raises(EngineError, match="no NVIDIA driver is installed; or use tensorrt-rtx"):
            ask()


def test_a_cache_that_cannot_be_written_is_one_line(small_onnx, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(EngineError, match=r"cannot be used for plans: .*set XDG_CACHE_HOME"):
        cached_plan(small_onnx, (1, 64, 64), RTX, folder=tmp_path / "file")


@pytest.mark.parametrize("shapes", ["--shape 2x64x128", "--dynamic 1x64x64:1x64x128:2x128x128", "--dynamic", ""])
def test_command_line(shapes, small_onnx, tmp_path, capsys):
    out = tmp_path / "small.plan"
    assert main([str(small_onnx), "--flavor", RTX, *shapes.split(), "--out", str(out)]) == 0
    expected = shapes.partition(" ")[2] or ("1x64x64:1x128x192:4x256x256" if shapes else "1x128x192")
    assert f"fp16, {expected}, tensorrt-rtx {trt.__version__}, portable" in capsys.readouterr().out
    assert read_sidecar(out).rebuild_command(out).endswith(f"{expected} --out {out}")


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ("none.onnx --out x.plan", 2, "none.onnx cannot be opened"),
        ("noise.onnx --out x.plan", 2, "noise.onnx is not a whole ONNX file"),
        ("cut.onnx --out x.plan", 2, "cut.onnx is not a whole ONNX file"),
        ("flipped.onnx --out x.plan", 2, "TensorRT cannot parse flipped.onnx"),
        ("good.onnx --shape 1x100x64 --out x.plan", 2, "expected NxHxW, N >= 1, sides multiples of 64"),
        ("good.onnx --out noise.onnx/x.plan", 1, "cannot be written"),
        ("good.onnx --flavor tensorrt --out x.plan", 1, "tensorrt cannot be loaded"),
    ],
)
def test_mistakes_are_one_line(arguments, status, message, small_onnx, tmp_path, monkeypatch, capsys):  # noqa: PLR0917
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    content = small_onnx.read_bytes()
    (tmp_path / "good.onnx").write_bytes(content)
    (tmp_path / "noise.onnx").write_bytes(random.Random(0).randbytes(3000))
    (tmp_path / "cut.onnx").write_bytes(content[:-10])
    (tmp_path / "flipped.onnx").write_bytes(content.replace(b"ConvTranspose", b"ConvTransposf"))
    assert main(arguments.split()) == status
    told = capsys.readouterr().err
    assert told.startswith("python -m engine: ")
    assert message in told
    assert told.count("\n") == 1
    assert not (tmp_path / "x.plan").exists()


@pytest.mark.parametrize(
    "arguments",
    [[], ["m.onnx"], ["m.onnx", "--shape", "64x64", "--out", "x"], ["m.onnx", "--dynamic", "1x64x64:2x64x64"]],
)
def test_missing_or_wrong_arguments_exit_2(arguments):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_ends_with_its_status(small_onnx, tmp_path, monkeypatch, capsys, name):
    number = getattr(signal, name)
    monkeypatch.setattr("engine.__main__.build_plan", lambda *args, **options: signal.raise_signal(number))
    assert main([str(small_onnx), "--out", str(tmp_path / "x.plan")]) == 128 + number
    words = {"SIGINT": "interrupted", "SIGTERM": "interrupted by SIGTERM"}[name]
    assert capsys.readouterr().err == f"python -m engine: {words}; nothing was written\n"


def test_importing_engine_loads_no_runtime():
    code = (
        "import sys, engine.tensorrt.plan_cache, engine.tensorrt.runner, engine.tensorrt.sidecar, engine.__main__\n"
        "sys.exit(bool({'torch', 'tensorrt', 'tensorrt_rtx', 'pycuda', 'onnx'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_foreign_onnx_file_is_refused(tmp_path):
    import onnx

    graph = onnx.helper.make_graph([], "empty", [], [])
    onnx.save(onnx.helper.make_model(graph), tmp_path / "foreign.onnx")
    with pytest.raises(ModelError, match="expected a file made by python -m export"):
        build_plan(tmp_path / "foreign.onnx", tmp_path / "x.plan", flavor=RTX)


@pytest.mark.parametrize("case", [((7, 5), "SM75", "7.5"), ((8, 6), None, "portable"), (None, None, "portable")])
def test_a_gpu_too_old_for_portable_plans_is_named_as_the_target(case, small_onnx, tmp_path, monkeypatch):
    """TensorRT-RTX builds for it, no GPU needed, and our own check then takes the plan."""
    capability, target, runs_as = case
    gpu = None if capability is None else Gpu("NVIDIA Test", capability, 1, (13, 0))
    monkeypatch.setattr("engine.tensorrt.flavor.find_gpu", lambda index=0: (gpu, "why"))
    targets = []

    def noted(*arguments, target, **others):
        targets.append(target)
        return compile_plan(*arguments, target=target, **others)

    monkeypatch.setattr(build, "compile_plan", noted)
    path = build_plan(small_onnx, tmp_path / "x.plan", flavor=RTX, shapes=(1, 64, 64))
    assert targets == [target]
    assert (read_sidecar(path).gpu, read_sidecar(path).compute_capability) == ("portable", runs_as)
    assert read_plan(path, version=trt.__version__, flavor=RTX, gpu=gpu)


def test_a_plan_is_built_on_the_gpu_of_the_device_that_will_run_it(small_onnx, tmp_path, monkeypatch):
    """The building thread is another than the caller's, and a context is current in one thread only."""
    asked, built = [], []

    def build_target(flavor, index):
        asked.append(index)
        return "NVIDIA Test", "8.6"

    class SecondGpu:
        index = 1

        @contextmanager
        def current(self):
            current.append(threading.get_ident())
            yield
            current.clear()

    current: list[int] = []

    def compile_here(*arguments, **options):
        built.append(current == [threading.get_ident()])
        return b"plan"

    monkeypatch.setattr(build, "build_target", build_target)
    monkeypatch.setattr("engine.tensorrt.compiler._compile", compile_here)
    cached_plan(small_onnx, (1, 64, 64), RTX, folder=tmp_path, device=SecondGpu())  # type: ignore[arg-type]
    assert asked == [1, 1]
    assert built == [True]
