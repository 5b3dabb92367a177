"""What of the GPU path works on this machine: `python -m commands.selfcheck`, the end of `make gpu`.

Each check prints one line and fails alone; those that need a failed one are skipped. Status 0 if at least one engine
gives on the GPU the people that onnxruntime gives on the CPU.
"""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np

from core.command_line import CommandParser, add_gpu_option, complain
from core.errors import PoseError
from core.signals import stop_of, stop_signals
from engine.gpu import find_gpu
from evaluation.compare import Comparison, compare_results
from evaluation.score import Results
from kernels.options import DecodeOptions
from pipeline import PosePipeline, open_source

CLIP = Path(__file__).resolve().parents[1] / "samples" / "crowd.mp4"
FRAMES = 50
ENGINES = ("tensorrt", "tensorrt-rtx", "torch")
# Of the people that either engine scores >= MIN_SCORE. With flip, FP16 groups about one in a hundred otherwise.
MIN_MATCHED = 0.97
MIN_SCORE = 0.3
SCORE_MARGIN = 0.2  # the other engine may score them this much lower: in FP16 a person can lose some joints
MAX_MEDIAN_PX = 1.0


@dataclass(frozen=True)
class Check:
    """One line: what, "ok", "no" or "--" (not installed, or not tried), and the finding as text."""

    what: str
    verdict: str
    words: str

    def __str__(self) -> str:
        return f"{self.what:24} {self.verdict}  {self.words}"


def run_checks(index: int = 0) -> Iterator[Check]:
    """Every check of one GPU, yielded when it is done. index: as `find_gpu` takes it."""
    gpu, words = find_gpu(index)
    yield Check("GPU and driver", "ok" if gpu else "no", words)
    if gpu is None:
        return
    context = attempt("pycuda", lambda: check_context(index))
    yield context
    kernels = attempt("CUDA kernels", lambda: check_kernels(index))
    yield kernels
    if "no" in (context.verdict, kernels.verdict):
        return
    expected = people_of("onnxruntime")
    for engine in ENGINES:
        yield attempt(f"tiny on {engine}", lambda engine=engine: check_engine(engine, expected, index))  # type: ignore[misc]


def attempt(what: str, check: Callable[[], str]) -> Check:
    """Run one check. An exception becomes its verdict, so that the next checks run in any case."""
    try:
        return Check(what, "ok", check())
    except ModuleNotFoundError as error:
        return Check(what, "--", str(error))
    except PoseError as error:
        missing = isinstance(error.__cause__, ImportError)
        return Check(what, "--" if missing else "no", str(error))
    except Exception as error:  # a self-check also reports unexpected errors
        return Check(what, "no", f"{type(error).__name__}: {' '.join(str(error).split())}")


def check_context(index: int) -> str:
    from engine.device import Device

    with Device(index) as device, device.current():
        stream, array = device.stream(), device.empty((1 << 20,), np.uint8)
        there, back = device.pinned((1 << 20,), np.uint8), device.pinned((1 << 20,), np.uint8)
        there.array[:] = np.arange(1 << 20, dtype=np.uint32).astype(np.uint8)
        stream.upload(array, there.array)
        stream.download(back.array, array)
        stream.synchronize()
        same = np.array_equal(there.array, back.array)
        if not same:
            raise PoseError("a megabyte went to the GPU and came back changed")
        return f"{importlib.import_module('pycuda').VERSION_TEXT}, context on {device.name}, memory goes there and back"


def check_kernels(index: int) -> str:
    from numba import cuda

    from kernels import cpu
    from kernels import cuda as gpu

    rng = np.random.default_rng(0)
    heatmaps = rng.random((1, 17, 64, 96), dtype=np.float32) ** 8  # many peaks, few of them strong
    tags = rng.normal(0, 2, (1, 17, 32, 48)).astype(np.float32)
    keypoints, scores = cpu.decode(heatmaps, tags, DecodeOptions())
    with cuda.gpus[index]:
        found = [array.copy_to_host() for array in gpu.decode(cuda.to_device(heatmaps), cuda.to_device(tags))]
    count = int(found[2].ravel()[0])
    if count != len(scores) or not np.allclose(found[0][:count], keypoints, atol=1e-3):
        raise PoseError(
            f"the GPU found {count} people and the CPU {len(scores)} in the same maps, or placed them apart"
        )
    return f"{count} people in drawn noise, as on the CPU"


def check_engine(engine: str, expected: Results, index: int) -> str:
    started = time.perf_counter()
    found = people_of(engine, gpu=index)
    seconds = time.perf_counter() - started
    comparison = compare_people(expected, found)
    problem = disagreement(comparison)
    if problem:
        raise PoseError(problem)
    return (
        f"{FRAMES} frames agree with onnxruntime: {comparison.matched} of {max(comparison.people)} people, "
        f"median {comparison.percentile(50):.2f} px apart ({seconds:.1f} s with all set-up)"
    )


def people_of(engine: str, frames: int = FRAMES, *, gpu: int | None = None, flip: bool = False) -> Results:
    """COCO results of the sample clip's first frames, for `compare_people`; image id = frame index.

    gpu: of an engine that runs on one.
    """
    options = replace(DecodeOptions(), min_score=MIN_SCORE - SCORE_MARGIN)
    results: Results = []
    with PosePipeline("tiny", engine=engine, gpu=gpu, flip=flip, options=options) as pose:
        # Not by NVDEC: its pictures take other ways to colours.
        source = open_source(str(CLIP), decoder="cpu")
        for result in islice(pose.run(source, steps=(), limit=frames), frames):
            results += result.people.to_coco(result.frame.index)
    return results


def compare_people(expected: Results, found: Results) -> Comparison:
    """The people of each who score >= MIN_SCORE; matched: less those whom the other lacks at any score."""
    sure = [[person for person in results if person["score"] >= MIN_SCORE] for results in (expected, found)]
    of_expected, of_found = compare_results(sure[0], found), compare_results(expected, sure[1])
    lacking = max(len(sure[0]) - of_expected.matched, len(sure[1]) - of_found.matched)
    people = len(sure[0]), len(sure[1])
    return Comparison(people, max(people) - lacking, of_expected.distances)


def disagreement(comparison: Comparison) -> str | None:
    """The problem as text if less than MIN_MATCHED of the people match or the median is above MAX_MEDIAN_PX."""
    people = max(comparison.people)
    if comparison.matched < MIN_MATCHED * people:
        return f"only {comparison.matched} of {people} people match those of onnxruntime; expected {MIN_MATCHED:.0%}"
    if comparison.percentile(50) > MAX_MEDIAN_PX:
        return f"keypoints lie {comparison.percentile(50):.2f} px apart (median); expected at most {MAX_MEDIAN_PX}"
    return None


def main() -> int:
    parser = CommandParser(prog="python -m commands.selfcheck", description=__doc__.split("\n\n")[0])
    add_gpu_option(parser)
    index = parser.parse_args().gpu or 0
    works = False
    try:
        with stop_signals():
            for check in run_checks(index):
                print(check, flush=True)
                works = works or (check.what.startswith("tiny on") and check.verdict == "ok")
    except KeyboardInterrupt as error:
        return complain(parser.prog, stop_of(error), stop_of(error).status)
    print("the GPU path works" if works else "the GPU path does not work here; the CPU path does: make demo")
    return 0 if works else 1


if __name__ == "__main__":
    sys.exit(main())
