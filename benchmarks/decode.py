"""Time `kernels.cpu` on drawn crowds: python -m benchmarks.decode [--repeat N] [--reference] [--check]

One thread, milliseconds a frame: the least CPU time, which other programs disturb least, then p50, p95 and p99 of the
elapsed time. --reference times the NumPy reference too; --check exits 1 if a least time is over its limit.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

import numba
import numpy as np

from kernels import DecodeOptions
from kernels.cpu import decode, preprocess, warm_up
from tests.reference import decode as reference
from tests.reference.golden import crowd_outputs

# people, (height, width) of the network input, flip: limit in ms, or None
CROWDS: dict[tuple[int, tuple[int, int], bool], float | None] = {
    (3, (256, 384), False): None,
    (3, (512, 704), False): None,
    (10, (512, 704), False): 12,
    (30, (512, 704), False): None,
    (3, (640, 1024), False): None,
    (30, (640, 1024), False): None,
    (3, (512, 704), True): None,
    (10, (512, 704), True): 40,
    (30, (512, 704), True): None,
}
GROWTH = 3.0  # 30 people take at most this many times what 3 take at the same size
# frame, network input
FRAMES = [((1080, 1920), (448, 832)), ((1080, 1920), (256, 448)), ((480, 640), (448, 640)), ((480, 640), (256, 384))]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=100, help="calls timed per line (100)")
    parser.add_argument("--reference", action="store_true", help="time the NumPy reference too, one call each")
    parser.add_argument("--check", action="store_true", help="exit 1 if a least time is over its limit")
    arguments = parser.parse_args()

    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, ", end="")
    print(f"NumPy {np.__version__}, Numba {numba.__version__}; {arguments.repeat} calls a line, one thread")
    started = time.perf_counter()
    warm_up()
    print(f"warm-up (compiled, or loaded from the cache): {time.perf_counter() - started:.1f} s\n")

    failures = _time_decode(arguments.repeat, with_reference=arguments.reference)
    _time_preprocess(arguments.repeat)
    for failure in failures:
        print(f"over the limit: {failure}")
    return 1 if arguments.check and failures else 0


def _time_decode(repeat: int, *, with_reference: bool) -> list[str]:
    print(f"{'decode':28}{'cpu':>8}{'p50':>8}{'p95':>8}{'p99':>8}   cpu without refine")
    failures = []
    least: dict[tuple[int, tuple[int, int], bool], float] = {}
    for crowd, limit in CROWDS.items():
        people, hw, flip = crowd
        heatmaps, tags = crowd_outputs(people, hw, flip=flip)
        times = _milliseconds(lambda: decode(heatmaps, tags), repeat)  # noqa: B023  called at once
        plain = _milliseconds(lambda: decode(heatmaps, tags, DecodeOptions(refine=False)), repeat)  # noqa: B023
        name = f"{people} people {hw[0]}x{hw[1]}{' flip' if flip else ''}"
        print(f"{name:28}{_row(times)}{plain.cpu:10.2f}", end="")
        if with_reference:
            slow = _milliseconds(lambda: reference.decode(heatmaps, tags), 1)  # noqa: B023
            print(f"   NumPy {slow.cpu:.0f}, {slow.cpu / times.cpu:.0f} times as long", end="")
        print()
        least[crowd] = times.cpu
        if limit is not None and least[crowd] > limit:
            failures.append(f"{name}: {least[crowd]:.2f} ms, at most {limit}")
    for (people, hw, flip), few in least.items():
        many = least.get((30, hw, flip))
        if people == 3 and many is not None:
            name = f"30 people by 3 people, {hw[0]}x{hw[1]}{' flip' if flip else ''}"
            print(f"{name}: {many / few:.2f}")
            if many > GROWTH * few:
                failures.append(f"{name}: {many / few:.2f}, at most {GROWTH}")
    return failures


def _time_preprocess(repeat: int) -> None:
    print(f"\n{'preprocess':28}{'cpu':>8}{'p50':>8}{'p95':>8}{'p99':>8}")
    for (H, W), (h, w) in FRAMES:
        image = np.random.default_rng(0).integers(0, 256, (H, W, 3), np.uint8)
        out = np.empty((3, h, w), np.float32)

        def fill(image=image, out=out, scale=h / H, center=(W / 2, H / 2)) -> None:
            preprocess(image, out, scale=scale, center=center, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))

        print(f"{f'{W}x{H} to {w}x{h}':28}{_row(_milliseconds(fill, repeat))}")


class Times(NamedTuple):
    """Of repeated calls, in milliseconds: the least CPU time of this thread, and all times on the clock."""

    cpu: float
    clock: np.ndarray


def _milliseconds(call: Callable[[], object], repeat: int) -> Times:
    call()
    clock, cpu = np.empty(repeat), np.empty(repeat)
    for n in range(repeat):
        before, cpu_before = time.perf_counter(), time.thread_time()
        call()
        clock[n], cpu[n] = time.perf_counter() - before, time.thread_time() - cpu_before
    return Times(float(cpu.min()) * 1e3, clock * 1e3)


def _row(times: Times) -> str:
    return "".join(f"{value:8.2f}" for value in (times.cpu, *np.percentile(times.clock, (50, 95, 99))))


if __name__ == "__main__":
    sys.exit(main())
