"""Real builds with TensorRT-RTX, which need no GPU: W32, tiny, every variant; precisions; damage; stopping."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from core.errors import EngineError, ModelError
from core.spec import ModelSpec
from engine.onnx_file import read_spec
from engine.shapes import ShapeRange
from engine.tensorrt.compiler import compile_plan, parse
from engine.tensorrt.flavor import load_tensorrt, make_log
from export.zoo import MODELS_FOLDER

trt = pytest.importorskip("tensorrt_rtx")

STATIC = ShapeRange.static((1, 512, 704))
DYNAMIC = ShapeRange((1, 256, 256), (1, 512, 704), (4, 1024, 1024))


def layers(onnx: Path) -> Counter[tuple[str, str]]:
    """How many layers of each type give each type of number, as TensorRT understood the file."""
    log = make_log(trt)
    builder = trt.Builder(log)
    network, parser = parse(trt, builder, onnx, log)
    assert parser.num_errors == 0
    found = [network.get_layer(i) for i in range(network.num_layers)]
    return Counter((layer.type.name, layer.get_output(0).dtype.name) for layer in found)


def test_w32_convolves_in_half_and_gives_float(w32_onnx):
    found = layers(w32_onnx)
    computing = {kind: n for kind, n in found.items() if kind[0] in ("CONVOLUTION", "DECONVOLUTION", "ACTIVATION")}
    assert computing == {("CONVOLUTION", "HALF"): 302, ("DECONVOLUTION", "HALF"): 1, ("ACTIVATION", "HALF"): 270}
    # What is done in FP32 is the aggregation: two casts, one up-sampling, the mean.
    assert found["CAST", "FLOAT"] == 2
    assert found["RESIZE", "FLOAT"] == 1
    assert found["RESIZE", "HALF"] == 28


@pytest.mark.parametrize("shapes", [STATIC, DYNAMIC], ids=["static", "dynamic"])
def test_w32_builds(w32_onnx, shapes):
    spec = read_spec(w32_onnx)
    reports = []
    plan = compile_plan(trt, w32_onnx, spec, shapes, progress=lambda phase, share: reports.append((share, phase)))
    assert 40e6 < len(plan) < 100e6  # 57 MB of weights in half precision
    shares = [share or 0.0 for share, _ in reports]
    assert shares == sorted(shares)
    assert 0 <= shares[0] < 0.1
    assert 0.8 < shares[-1] <= 1
    assert len({phase for _, phase in reports}) > 3


@pytest.mark.parametrize("name", ["tiny", "small"])
def test_a_bundled_network_builds_in_half(name):
    """All but the smoothing, across and down."""
    path = MODELS_FOLDER / f"{name}-fp16.onnx"
    spec, found = read_spec(path), layers(path)
    assert found["CONVOLUTION", "HALF"] > 50
    assert found["CONVOLUTION", "FLOAT"] == 2
    assert {dtype for (kind, dtype) in found if kind == "DECONVOLUTION"} == {"HALF"}
    for shapes in (ShapeRange.static((1, 256, 384)), ShapeRange((1, 128, 128), (1, 256, 384), (4, 512, 512))):
        assert len(compile_plan(trt, path, spec, shapes)) > 2e6


def test_a_plan_for_one_kind_of_gpu_is_another_than_the_portable_one():
    onnx = MODELS_FOLDER / "tiny-fp16.onnx"
    spec, shapes = read_spec(onnx), ShapeRange.static((1, 64, 64))
    portable, ampere = (compile_plan(trt, onnx, spec, shapes, target=target) for target in (None, "SM80"))
    assert len(ampere) > 2e6
    assert ampere != portable


VARIANTS = {
    "HRNet baseline": {"deconvolutions": 0},
    "multi-resolution supervision": {"concatenate": False, "aggregate": False, "residual_blocks": 0},
    "feature concatenation": {"aggregate": False, "residual_blocks": 0},
    "heatmap aggregation": {"residual_blocks": 0},
    "extra residual blocks": {},
    "CrowdPose": {"joints": 14},
    "two deconvolutions": {"deconvolutions": 2},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_parses_and_builds(variant, tmp_path):
    from export.to_onnx import export_model
    from tests.export.networks import Small, drawn

    model = drawn(Small(**VARIANTS[variant]))
    spec = ModelSpec(name="variant", precision="fp16", joint_set="crowdpose" if model.joints == 14 else "coco")
    path = export_model(model, spec, tmp_path / "variant.onnx")
    found = layers(path)
    assert {dtype for (kind, dtype) in found if kind in ("CONVOLUTION", "DECONVOLUTION")} == {"HALF"}
    assert compile_plan(trt, path, spec, ShapeRange((1, 64, 64), (1, 64, 128), (2, 128, 128)))


def test_a_whole_two_deconvolution_network_builds(tmp_path):
    from export.hrnet import HigherHRNet
    from export.to_onnx import export_model
    from tests.export.networks import drawn

    spec = ModelSpec(name="two", precision="fp16", joint_set="crowdpose")
    path = export_model(drawn(HigherHRNet(4, 14, deconvolutions=2)), spec, tmp_path / "two.onnx")
    assert compile_plan(trt, path, spec, ShapeRange.static((1, 64, 128)))


def test_a_fixed_network_builds_for_its_own_shape_only(tmp_path):
    from export.to_onnx import export_model
    from tests.export.networks import Small, drawn

    spec = ModelSpec(name="fixed", precision="fp16", fixed_hw=(64, 128))
    path = export_model(drawn(Small()), spec, tmp_path / "fixed.onnx")
    assert compile_plan(trt, path, spec, ShapeRange.static((1, 64, 128)))
    for shape, axis in (((2, 64, 128), "N fixed to 1"), ((1, 128, 128), "H fixed to 64")):
        with pytest.raises(ValueError, match=f"{axis}.*export it without --fixed"):
            compile_plan(trt, path, spec, ShapeRange.static(shape))


def test_the_spec_must_be_the_networks(small_onnx):
    wrong = replace(read_spec(small_onnx), precision="fp32")
    with pytest.raises(ModelError, match=r"image HALF, .*expected image FLOAT"):
        compile_plan(trt, small_onnx, wrong, ShapeRange.static((1, 64, 64)))


def test_a_node_that_cannot_be_parsed_is_named(small_onnx, tmp_path):
    import onnx

    proto = onnx.load(small_onnx)
    node = next(node for node in proto.graph.node if node.op_type == "ConvTranspose")
    node.op_type = "Convolute"
    onnx.save(proto, tmp_path / "wrong.onnx")
    with pytest.raises(ModelError) as caught:
        compile_plan(trt, tmp_path / "wrong.onnx", read_spec(small_onnx), ShapeRange.static((1, 64, 64)))
    assert f"node {node.name} (Convolute)" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_damaged_files_never_crash_the_interpreter(small_onnx, tmp_path):
    """In a process of its own: a crash there is a failure here, not the end of the run."""
    code = textwrap.dedent(
        """
        import random, sys
        from pathlib import Path
        from engine.tensorrt.compiler import compile_plan
        from core.errors import EngineError, ModelError
        from engine.tensorrt.flavor import load_tensorrt
        from engine.onnx_file import read_spec
        from engine.shapes import ShapeRange

        trt, rng = load_tensorrt("tensorrt-rtx"), random.Random(0)
        path, spec = Path(sys.argv[1]), read_spec(sys.argv[1])
        whole, damaged = path.read_bytes(), path.with_name("damaged.onnx")
        cases = [b"", *(rng.randbytes(n) for n in (1, 100, 5000))]
        cases += [whole[: rng.randrange(len(whole))] for _ in range(8)]
        for _ in range(16):
            flipped = bytearray(whole)
            for _ in range(rng.choice((1, 10, 100))):
                flipped[rng.randrange(len(flipped))] = rng.randrange(256)
            cases.append(bytes(flipped))
        failed = 0
        for case in cases:
            damaged.write_bytes(case)
            try:
                compile_plan(trt, damaged, spec, ShapeRange.static((1, 64, 64)))
            except (EngineError, ModelError) as error:
                assert "\\n" not in str(error), error
                failed += 1
        print(len(cases), failed)
        """
    )
    copied = tmp_path / "small.onnx"
    copied.write_bytes(small_onnx.read_bytes())
    done = subprocess.run([sys.executable, "-c", code, copied], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    cases, failed = map(int, done.stdout.split())
    assert cases == 28
    assert failed >= 12  # a flipped bit of a weight is a weight


def test_stopping_ends_the_build_and_reaches_the_caller(small_onnx):
    """Ctrl-C while TensorRT works, and an error of whoever shows the progress."""
    seen = []

    def show(phase, share):
        seen.append(phase)
        if len(seen) == 5:
            raise RuntimeError("the terminal is gone")

    with pytest.raises(RuntimeError, match="the terminal is gone"):
        compile_plan(trt, small_onnx, read_spec(small_onnx), ShapeRange.static((1, 64, 64)), progress=show)
    assert len(seen) == 5


def test_ctrl_c_stops_a_build(w32_onnx):
    code = textwrap.dedent(
        """
        import os, signal, sys, threading
        from pathlib import Path
        from engine.tensorrt.compiler import compile_plan
        from engine.tensorrt.flavor import load_tensorrt
        from engine.onnx_file import read_spec
        from engine.shapes import ShapeRange

        steps, path = [], Path(sys.argv[1])

        def show(phase, share):
            if not steps:
                os.kill(os.getpid(), signal.SIGINT)
            steps.append(phase)

        try:
            compile_plan(load_tensorrt("tensorrt-rtx"), path, read_spec(path), ShapeRange.static((1, 512, 704)),
                         progress=show)
        except KeyboardInterrupt:
            print("stopped", threading.active_count(), steps.count("Building engine"))
        """
    )
    done = subprocess.run([sys.executable, "-c", code, w32_onnx], capture_output=True, text=True, check=False)
    told, threads, top_steps = done.stdout.split()
    assert (told, threads) == ("stopped", "1"), done.stderr
    assert int(top_steps) < 7  # its start and six steps make a whole build


class Wrapped:
    """Another object, but for what a subclass defines."""

    def __init__(self, real):
        self.__dict__["real"] = real

    def __getattr__(self, name):
        return getattr(self.real, name)

    def __setattr__(self, name, value):
        setattr(self.real, name, value)


class Timings:
    def serialize(self):
        return b"new timings"


class TimingConfig(Wrapped):
    """TensorRT-RTX has no timings; the path is the same, so this notes the calls. It takes only what it is told to."""

    def create_timing_cache(self, content):
        self.real_calls.append(content)
        return None if content in self.unreadable else "cache"

    def set_timing_cache(self, cache, ignore_mismatch):
        self.real_calls.append((cache, ignore_mismatch))
        return self.takes

    def get_timing_cache(self):
        return self.kept


def timed(calls, *, unreadable=(), takes=True, kept=Timings()):  # noqa: B008  # it has no state
    """tensorrt_rtx with a configuration that has timings."""

    class Builder(Wrapped):
        def create_builder_config(self):
            config = TimingConfig(self.real.create_builder_config())
            config.__dict__.update(real_calls=calls, unreadable=unreadable, takes=takes, kept=kept)
            return config

        def build_serialized_network(self, network, config):
            return self.real.build_serialized_network(network, config.real)

    class Module(Wrapped):
        def Builder(self, log):
            return Builder(trt.Builder(log))

    return Module(trt)


def build_with_timings(module, onnx, kept):
    return compile_plan(module, onnx, read_spec(onnx), ShapeRange.static((1, 64, 64)), timing_cache=kept)


def test_a_timing_cache_is_handed_over_and_kept(small_onnx, tmp_path):
    kept = tmp_path / "timings" / "kept.cache"
    for known in (b"", b"new timings"):
        calls: list[object] = []
        build_with_timings(timed(calls), small_onnx, kept)
        assert calls == [known, ("cache", False)]
        assert kept.read_bytes() == b"new timings"


def test_timings_of_another_gpu_or_damaged_ones_are_left_and_replaced(small_onnx, tmp_path):
    kept = tmp_path / "kept.cache"
    kept.write_bytes(b"of another version")
    calls: list[object] = []
    build_with_timings(timed(calls, unreadable=(b"of another version",)), small_onnx, kept)
    assert calls == [b"of another version", b"", ("cache", False)]
    assert kept.read_bytes() == b"new timings"


def test_timings_that_are_not_taken_or_not_given_cost_time_and_not_the_plan(small_onnx, tmp_path, caplog):
    kept = tmp_path / "kept.cache"
    assert build_with_timings(timed([], takes=False, kept=None), small_onnx, kept)
    assert "TensorRT does not take timings" in caplog.text
    assert not kept.exists()
    (tmp_path / "file").write_text("in the way")
    assert build_with_timings(timed([]), small_onnx, tmp_path / "file" / "kept.cache")
    assert "the next build measures again" in caplog.text


def test_a_portable_plan_can_be_captured_into_a_graph(small_onnx, monkeypatch):
    """TensorRT-RTX demands the flag of whoever captures; other TensorRTs have no such flag."""
    flags = []

    class Builder(Wrapped):
        def build_serialized_network(self, network, config):
            flags.append(config.get_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION))
            return self.real.build_serialized_network(network, config)

    class Module(Wrapped):
        def Builder(self, log):
            return Builder(trt.Builder(log))

    compile_plan(Module(trt), small_onnx, read_spec(small_onnx), ShapeRange.static((1, 64, 64)))
    assert flags == [True]


def test_a_flavour_that_is_not_installed_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(EngineError, match=r"tensorrt cannot be loaded .*; pip install tensorrt"):
        load_tensorrt("tensorrt")
    with pytest.raises(ValueError, match="'tensor'; expected tensorrt or tensorrt-rtx"):
        load_tensorrt("tensor")  # type: ignore[arg-type]
