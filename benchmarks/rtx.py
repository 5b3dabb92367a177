"""Check whether TensorRT-RTX runs on a GPU: python -m benchmarks.rtx [--gpu N].

It does not list Hopper (9.0) as supported.
`tiny` in FP16 is built for each target, loaded, run on frames of the bundled clip, and compared with onnxruntime. If a
target fails, the message of TensorRT-RTX is printed unchanged. Building needs no GPU, the rest does.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.forward import forward
from core.command_line import add_gpu_option
from core.errors import PoseError
from engine.device import Device
from engine.gpu import Gpu, find_gpu
from engine.onnx_file import read_spec
from engine.onnx_runner import OnnxRunner
from engine.shapes import ShapeRange
from engine.tensorrt.compiler import compile_plan
from engine.tensorrt.flavor import RTX_CAPABILITIES, load_tensorrt
from engine.tensorrt.plan_cache import build_plan
from engine.tensorrt.runner import TensorRTRunner
from engine.tensorrt.sidecar import read_sidecar, write_plan
from export.zoo import MODELS_FOLDER
from kernels.cpu import preprocess
from pipeline import open_source
from pipeline.letterbox import Letterbox

CURRENT = "CURRENT"  # TensorRT-RTX takes the GPU of the current context
TARGETS = (None, CURRENT, "SM80")  # None: portable, as the project builds it
CLIP = Path(__file__).resolve().parents[1] / "samples" / "crowd.mp4"
FP32 = MODELS_FOLDER / "tiny.onnx"
RUNS = "TensorRT-RTX runs here"
FRAMES = 20
PASSES = 200  # timed together


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rtx", description=__doc__)
    add_gpu_option(parser)
    index = parser.parse_args(argv).gpu or 0
    logging.basicConfig(level=logging.INFO, format="    %(message)s")  # TensorRT's own messages
    gpu, words = find_gpu(index)
    print(words)
    works = False
    with tempfile.TemporaryDirectory() as folder:
        for target in TARGETS:
            name = target or "portable"
            try:
                plan = build(Path(folder) / f"{name}.plan", target, index)
                print(f"{name}: built, {plan.stat().st_size / 1e6:.1f} MB")
                print(f"{name}: {run(plan, index)}")
                works = True
            except PoseError as error:
                print(f"{name}: {error}")
    print(RUNS if works else "TensorRT-RTX does not run here")
    return status(works, gpu)


def status(works: bool, gpu: Gpu | None) -> int:
    """Exit status: 0 if it works, or if TensorRT-RTX does not support this GPU; 1 for any other failure."""
    refusal_is_known = gpu is not None and gpu.compute_capability not in RTX_CAPABILITIES
    return 0 if works or refusal_is_known else 1


def build(path: Path, target: str | None, index: int) -> Path:
    """A plan of `tiny` for one frame of the clip. index: the GPU that the target CURRENT means."""
    onnx = MODELS_FOLDER / "tiny-fp16.onnx"
    spec = read_spec(onnx)
    shape = 1, *Letterbox.for_model((640, 480), spec).input_hw
    build_plan(onnx, path, flavor="tensorrt-rtx", shapes=shape)
    if target is not None:  # the sidecar says portable, so that TensorRT-RTX itself decides whether it runs
        with ExitStack() as stack:
            if target == CURRENT:
                stack.enter_context(stack.enter_context(Device(index)).current())
            plan = compile_plan(load_tensorrt("tensorrt-rtx"), onnx, spec, ShapeRange.static(shape), target=target)
        write_plan(path, plan, replace(read_sidecar(path), plan_sha256=hashlib.sha256(plan).hexdigest()))
    return path


def run(plan: Path, index: int) -> str:
    """Difference of its heatmaps from onnxruntime's, and time of a pass. Raises EngineError if it does not run."""
    with Device(index) as device, TensorRTRunner(plan, device) as runner, OnnxRunner(FP32) as reference:
        apart: list[float] = []
        for images in inputs():
            ours, theirs = forward(runner, device, images.astype(np.float16)), reference.infer(images)
            apart.append(float(np.abs(ours.heatmaps - theirs.heatmaps).max()))
        with device.current():
            stream, before, after = device.stream(), device.event(timing=True), device.event(timing=True)
            before.record(stream)
            for _ in range(PASSES):
                runner.enqueue(stream)
            after.record(stream)
            after.wait()
            each_ms = after.ms_since(before) / PASSES
    return (
        f"runs; heatmaps differ from onnxruntime's by at most {max(apart):.4f} on {FRAMES} frames; "
        f"{each_ms:.3f} ms a pass, {1e3 / each_ms:.0f} FPS, {PASSES} passes queued"
    )


def inputs() -> Iterator[NDArray[np.float32]]:
    """(1, 3, H, W) float32 of each of the clip's first frames."""
    spec = read_spec(FP32)
    with open_source(str(CLIP)) as source:
        for frame in islice(source, FRAMES):
            box = Letterbox.for_model(frame.image.shape[1::-1], spec)
            images = np.empty((1, 3, *box.input_hw), np.float32)
            preprocess(frame.image, images[0], scale=box.scale, center=box.center, mean=spec.mean, std=spec.std)
            yield images


if __name__ == "__main__":
    sys.exit(main())
