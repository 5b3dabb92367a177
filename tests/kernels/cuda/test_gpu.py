"""Tests that need a GPU: `pytest -m gpu --require-gpu`. Each run finds the people of the authors and of the host."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numba_cuda  # type: ignore[import-untyped]
import numpy as np
import pytest

from kernels.cpu import decode as host_decode
from kernels.cpu import match as host_match
from kernels.cuda import Workspace, decode, match, preprocess
from kernels.cuda._cuda import cuda
from kernels.options import DecodeOptions
from tests.kernels.cuda.agreement import same_people
from tests.kernels.cuda.crowds import draw_crowd
from tests.kernels.cuda.graphs import Stream
from tests.reference.golden import generate_inputs, network_outputs
from tests.reference.preprocess import preprocess as reference_preprocess

GEOMETRY: dict[str, Any] = {
    "scale": 512 / 480,
    "center": (320.0, 240.0),
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
}

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(1200)]

ROOT = Path(__file__).parents[3]
MODES = {
    "plain": DecodeOptions(),
    "flip": DecodeOptions(),
    "half_resolution": DecodeOptions(project=False),
    "no_refine": DecodeOptions(refine=False),
}
# Where several matchings are right for the authors' criterion, the host is the measure (tests/kernels/cpu holds it).
TIED = {"late_eight_512x704", *(case for case in generate_inputs.CASES if case.startswith("messy"))}


def on_device(heatmaps, tags, options, workspace=None):
    """keypoints (P, K, 3) and scores (P,) of one frame, by the device."""
    result = decode(cuda.to_device(heatmaps), cuda.to_device(tags), None if workspace else options, workspace)
    keypoints, scores, count = (array.copy_to_host() for array in result)
    assert not keypoints[count:].any() and not scores[count:].any()
    return keypoints[:count], scores[:count]


def test_golden_cases_in_all_modes(golden_dir, capsys):
    flips = joints = 0
    with np.load(golden_dir / "decode.npz") as recorded:
        for case in generate_inputs.CASES:
            for mode, options in MODES.items():
                heatmaps, tags = network_outputs(case, flip=mode == "flip")
                found = on_device(heatmaps, tags, options)
                flips += same_people(found, host_decode(heatmaps, tags, options), heatmaps, options)
                joints += found[0].shape[0] * 17
                if case not in TIED:
                    people = recorded[f"{case}/{mode}/people"][..., :3].reshape(-1, 17, 3).copy()
                    people[..., :2] *= 1 if options.project else 2  # recorded in cells of the heatmap
                    same_people(found, (people, recorded[f"{case}/{mode}/scores"]), heatmaps, options)
    with capsys.disabled():
        print(f"\ngolden: {flips} of {joints} joints a quarter the other way")
    assert joints > 5000
    assert flips < joints * 1e-4


@pytest.mark.parametrize(("hw", "T"), [((128, 128), 1), ((128, 192), 2), ((192, 128), 1), ((128, 240), 1)])
def test_a_thousand_drawn_crowds(hw, T, capsys):
    """250 crowds of 0 to 30 people for each shape."""
    rng = np.random.default_rng(hw[0] * 1000 + hw[1] + T)
    options = DecodeOptions()
    workspace = Workspace((T, 17, *hw), options)
    flips = joints = 0
    for _ in range(250):
        heatmaps, tags = draw_crowd(rng, int(rng.integers(0, 31)), hw, T=T)
        found = on_device(heatmaps, tags, options, workspace)
        flips += same_people(found, host_decode(heatmaps, tags, options), heatmaps, options)
        joints += found[0].shape[0] * 17
    with capsys.disabled():
        print(f"\ncrowds {hw}, T = {T}: {flips} of {joints} joints a quarter the other way")
    assert joints > 10_000
    assert flips < joints * 1e-4


@pytest.mark.parametrize(
    "options",
    [
        DecodeOptions(min_score=0.2, min_joint=0.1, duplicate_oks=0.7),
        DecodeOptions(max_people=128, threshold=0.05),
        DecodeOptions(nms_size=3, adjust=False),
        DecodeOptions(nms_size=9, project=False, tag_threshold=0.5),
    ],
    ids=["filter", "128 people", "nms 3", "nms 9"],
)
@pytest.mark.parametrize("K", [17, 14])
def test_options(options, K):
    rng = np.random.default_rng(K)
    for T in (1, 2):
        heatmaps, tags = draw_crowd(rng, 40, (160, 224), K=K, T=T)
        found = on_device(heatmaps, tags, options)
        same_people(found, host_decode(heatmaps, tags, options), heatmaps, options)


def test_noise_and_flat_maps():
    rng = np.random.default_rng(1)
    options = DecodeOptions()
    noise = (
        rng.uniform(0, 1, (1, 17, 256, 352)).astype(np.float32),
        rng.normal(0, 3, (1, 17, 128, 176)).astype(np.float32),
    )
    flat = np.full((1, 17, 64, 64), 0.5, np.float32), np.zeros((1, 17, 32, 32), np.float32)
    empty = np.full((1, 17, 64, 64), np.nan, np.float32), np.full((1, 17, 32, 32), np.nan, np.float32)
    for heatmaps, tags in (noise, flat, empty):
        same_people(on_device(heatmaps, tags, options), host_decode(heatmaps, tags, options), heatmaps, options)


def test_half_precision_and_frames_in_a_batch():
    rng = np.random.default_rng(2)
    frames = [draw_crowd(rng, people, (128, 192)) for people in (0, 3, 12, 30)]
    heatmaps, tags = (np.stack(maps).astype(np.float16) for maps in zip(*frames, strict=True))
    result = decode(cuda.to_device(heatmaps), cuda.to_device(tags))
    keypoints, scores, count = (array.copy_to_host() for array in result)
    for n in range(4):
        maps, own_tags = heatmaps[n].astype(np.float32), tags[n].astype(np.float32)
        found = keypoints[n, : count[n]], scores[n, : count[n]]
        same_people(found, host_decode(maps, own_tags), maps, DecodeOptions())


@pytest.mark.parametrize("people", [10, 30])
def test_the_same_bytes_over_100_runs(people):
    heatmaps, tags = (cuda.to_device(maps) for maps in draw_crowd(np.random.default_rng(people), people, (256, 352)))
    workspace = Workspace(heatmaps.shape, DecodeOptions(min_joint=0.05, duplicate_oks=0.8))
    runs = set()
    for _ in range(100):
        result = decode(heatmaps, tags, None, workspace)
        runs.add(b"".join(array.copy_to_host().tobytes() for array in result))
    assert len(runs) == 1


def test_a_captured_graph_gives_the_same_as_launches():
    rng = np.random.default_rng(3)
    first, second = (draw_crowd(rng, people, (128, 192)) for people in (5, 9))
    heatmaps, tags = (cuda.to_device(maps) for maps in first)
    frame = cuda.to_device(rng.integers(0, 256, (240, 320, 3)).astype(np.uint8))
    image = cuda.to_device(np.zeros((1, 3, 256, 384), np.float16))
    workspace, stream = Workspace(heatmaps.shape), Stream()

    def enqueue():
        preprocess(frame, image, **GEOMETRY, stream=stream.handle)
        decode(heatmaps, tags, None, workspace, stream=stream.handle)

    enqueue()  # compiles what is not yet compiled
    launch = stream.capture(enqueue)
    for crowd in (first, second, first):
        for array, maps in zip((heatmaps, tags), crowd, strict=True):
            array.copy_to_device(maps)
        cuda.synchronize()
        launch()
        stream.wait()
        keypoints, scores, count = (array.copy_to_host() for array in workspace.result)
        same_people((keypoints[:count], scores[:count]), host_decode(*crowd), crowd[0], DecodeOptions())


@pytest.mark.parametrize("sides", [(1, 1), (30, 30), (30, 12), (12, 30), (128, 128), (128, 64)])
def test_assignments_equal_the_host_to_the_bit(sides):
    rng = np.random.default_rng(sides[0])
    for steps in (1, 4, 1000):
        distance = (rng.integers(0, 4 * steps, sides) / steps).astype(np.float32)
        value = (rng.integers(1, 1 + steps, sides[0]) / steps).astype(np.float32)
        columns = cuda.to_device(np.zeros(sides[0], np.int32))
        match(cuda.to_device(distance), cuda.to_device(value), columns)
        np.testing.assert_array_equal(columns.copy_to_host(), host_match(distance, value))


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_preprocess_equals_the_reference(dtype):
    rng = np.random.default_rng(4)
    frame = rng.integers(0, 256, (480, 640, 3)).astype(np.uint8)
    out = cuda.to_device(np.zeros((2, 3, 512, 704), dtype))
    preprocess(cuda.to_device(frame), out, mirror=True, **GEOMETRY)
    written = out.copy_to_host()
    expected = reference_preprocess(frame, (512, 704), **GEOMETRY)
    np.testing.assert_allclose(written[0], expected, atol=2e-3 if dtype == np.float16 else 1e-3)
    np.testing.assert_array_equal(written[1], written[0][..., ::-1])


@pytest.mark.parametrize("tool", ["memcheck", "racecheck"])
def test_compute_sanitizer_finds_nothing(tool, request):
    beside = sorted(Path(numba_cuda.__file__).parents[1].glob("nvidia/**/bin/compute-sanitizer"))
    program = (
        str(beside[-1])
        if beside
        else shutil.which("compute-sanitizer", path=os.environ.get("PATH", "") + ":/usr/local/cuda/bin")
    )
    if program is None:
        message = "no compute-sanitizer: install the CUDA toolkit"
        if request.config.getoption("--require-gpu"):
            pytest.fail(message)
        pytest.skip(message)
    command = [
        program,
        "--tool",
        tool,
        "--error-exitcode",
        "1",
        sys.executable,
        "-m",
        "tests.kernels.cuda.every_kernel",
    ]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900, check=False)
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-2000:]
    assert "as on the host" in run.stdout
