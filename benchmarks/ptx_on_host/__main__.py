"""Run a live frame's kernels on the host, compare the people with `kernels.cpu`, and count what was executed.

    python -m benchmarks.ptx_on_host --people 1 10 30

Needs a C compiler, and numba-cuda with its compiler, which the environment of `make test` has. Exit status 1 if people
differ, or if the letterboxed frame differs by more than its rounding.
"""

from __future__ import annotations

import argparse
import json
import linecache
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.ptx_on_host.kernels import DECODE, Chain, same_bits
from benchmarks.ptx_on_host.machine import Counts
from benchmarks.ptx_on_host.ptx import Instruction
from pipeline.pose import LIVE_OPTIONS
from tests.kernels.cuda.crowds import draw_crowd

FRAME_HW = (480, 640)
HOT_BLOCKS = 12
CLOCKS_A_STEP = 3  # of a chain, since its instructions wait for each other and for memory
INPUT_TOLERANCE = 2e-3  # float16 rounds values above 2 by up to 1e-3, and positions are float32


@dataclass(frozen=True)
class Run:
    """One frame. equal: are the people before and after the output filter those of `kernels.cpu`, to the bit?"""

    people: int
    seed: int
    found: int
    equal: tuple[bool, bool]
    input_error: float  # of preprocess: the largest difference from `kernels.cpu`, in the network's units
    counts: dict[str, Counts]

    def summary(self) -> dict[str, object]:
        return {
            "people": self.people,
            "shuffle": self.seed,
            "found": self.found,
            "equal_before_filter": self.equal[0],
            "equal": self.equal[1],
            "input_error": self.input_error,
            "estimate_us": estimate_us(self.counts.values()),
            "kernels": {
                name: {
                    "blocks": c.blocks,
                    "warps": c.warps,
                    "warp_instructions": c.total,
                    "wide_integer_share": c.wide_share,
                    "barriers": c.barriers,
                    "chain": c.chain,
                    "mean_chain": c.mean_chain,
                    "issue_us": c.issue_us,
                    "chain_us": c.chain_us,
                }
                for name, c in self.counts.items()
            },
        }


def run(chain: Chain, people: int, seed: int) -> Run:
    """Run a drawn crowd through all kernels; the number of people is the seed of frame and crowd."""
    rng = np.random.default_rng(people)
    map_hw = (chain.input_hw[0] // 2, chain.input_hw[1] // 2)
    crowds = [draw_crowd(rng, people, map_hw, T=2 if chain.flip else 1) for _ in range(chain.frames)]
    heatmaps, tags = (np.stack(maps) for maps in zip(*crowds, strict=True))
    h, w = FRAME_HW
    frame = rng.integers(0, 256, (h * 3 // 2, w) if chain.nv12 else (h, w, 3), dtype=np.uint8)
    chain.shuffle(seed)
    images = chain.preprocess(frame)
    error = float(np.abs(images[0].astype(np.float32) - chain.preprocess_on_cpu(frame)).max())
    if chain.flip and images[1].tobytes() != images[0][..., ::-1].tobytes():
        error = float("inf")
    found, wanted = chain.decode(heatmaps, tags), chain.decode_on_cpu(heatmaps, tags)
    before, after = (all(same_bits(a[i], b[i]) for a, b in zip(found, wanted, strict=True)) for i in (0, 1))
    counts = {name: kernel.counts for name, kernel in chain.kernels.items() if kernel.counts is not None}
    return Run(people, seed, sum(len(scores) for _, (_, scores) in found), (before, after), error, counts)


def verdict(result: Run) -> str:
    order = f"shuffled by {result.seed}" if result.seed else "in order"
    before, after = ("equal" if same else "DIFFERENT" for same in result.equal)
    return (
        f"{result.people} drawn, {result.found} found, {order}: people before the filter {before}, "
        f"after it {after}; "
        f"input within {result.input_error:.1e}"
    )


def table(result: Run) -> Iterator[str]:
    heads = ("blocks", "warps", "instructions (M)", "64-bit integer", "barriers", "chain", "issue (us)", "chain (us)")
    yield f"| kernel | {' | '.join(heads)} |"
    yield f"| --- |{' ---: |' * len(heads)}"
    for name, c in result.counts.items():
        yield (
            f"| {name} | {c.blocks:,} | {c.warps:,} | {c.total / 1e6:.3f} | {c.wide_share:.0%} | {c.barriers:,} "
            f"| {c.chain:,.0f} | {c.issue_us:.2f} | {c.chain_us:.1f} |"
        )
    yield f"estimate for an H100: {estimate_us(result.counts.values()):.0f} us"


def estimate_us(counts: Iterable[Counts]) -> float:
    """Rule of thumb for an H100: all instructions issued, and each kernel's longest chain at three clocks a step."""
    return sum(c.issue_us + CLOCKS_A_STEP * c.chain_us for c in counts)


def hot(name: str, counts: Counts) -> Iterator[str]:
    """The basic blocks where the longest chain goes, with their Python lines and their most common instructions."""
    blocks = len(counts.entry.blocks)
    yield f"{name}: a chain of {counts.chain:,.0f} through {blocks} basic blocks, the heaviest:"
    for number, weight, instructions in counts.hottest(HOT_BLOCKS):
        opcodes = Counter(instruction.opcode for instruction in instructions).most_common(6)
        wide = sum(i.weight for i in instructions if i.is_wide_integer) / sum(i.weight for i in instructions)
        yield (
            f"{weight / counts.chain:6.1%}  block {number}: {counts.chain_visits[number]:,.0f} visits of "
            f"{len(instructions)} instructions, weight {weight:,.0f}, "
            f"{wide:.0%} 64-bit integer: {', '.join(f'{times} {opcode}' for opcode, times in opcodes)}"
        )
        yield from _source_lines(counts.entry.source, instructions)


def _source_lines(source: str, instructions: list[Instruction]) -> Iterator[str]:
    """Inlined instructions have the line in the kernel that calls the function."""
    weights: Counter[int] = Counter()
    for instruction in instructions:
        weights[instruction.line] += round(100 * instruction.weight)
    for line, _ in weights.most_common(3):
        if line and source:
            yield f"          {Path(source).name}:{line}: {linecache.getline(source, line).strip()}"


def size(text: str) -> tuple[int, int]:
    try:
        height, width = (int(side) for side in text.split("x"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text} is not HEIGHTxWIDTH, such as 512x704") from None
    if height < 4 or width < 4 or height % 4 or width % 4:
        raise argparse.ArgumentTypeError(f"{text}: both sides must be multiples of 4")
    return height, width


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.ptx_on_host", description=__doc__.splitlines()[0] if __doc__ else ""
    )
    parser.add_argument("--people", type=int, nargs="+", default=[1, 10, 30], metavar="N", help="crowds to draw")
    parser.add_argument("--size", type=size, default=(512, 704), metavar="HxW", help="network input; default 512x704")
    parser.add_argument("--frames", type=int, default=1, metavar="N", help="frames decoded at once; default 1")
    parser.add_argument("--flip", action="store_true", help="with the mirrored frame")
    parser.add_argument("--nv12", action="store_true", help="frames as a video decoder leaves them, instead of BGR")
    parser.add_argument("--shuffles", type=int, default=0, metavar="N", help="run N times more, in shuffled orders")
    parser.add_argument(
        "--hot", choices=("preprocess", "preprocess_nv12", *DECODE), help="show where this kernel's chain goes"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures here")
    return parser.parse_args()


def main() -> int:
    arguments = parse_arguments()
    chain = Chain(
        arguments.size,
        arguments.flip,
        LIVE_OPTIONS,
        arguments.frames,
        nv12=arguments.nv12,
        with_lines=arguments.hot or "",
    )
    runs = []
    for people in arguments.people:
        for seed in range(arguments.shuffles + 1):
            runs.append(run(chain, people, seed))
            print(verdict(runs[-1]), flush=True)
            if seed == 0:
                print("\n".join(table(runs[-1])), flush=True)
                if arguments.hot:
                    print("\n".join(hot(arguments.hot, runs[-1].counts[arguments.hot])), flush=True)
    approximate = {name: chain.programs[kernel.kernel].approximate for name, kernel in chain.kernels.items()}
    for name, opcodes in approximate.items():
        if opcodes:
            print(f"{name}: {', '.join(sorted(opcodes))} is the device's own approximation, here the C library's")
    if arguments.json:
        settings = {"size": list(arguments.size), "flip": arguments.flip}
        arguments.json.write_text(json.dumps(settings | {"runs": [r.summary() for r in runs]}, indent=1) + "\n")
    return 0 if all(all(r.equal) and r.input_error <= INPUT_TOLERANCE for r in runs) else 1


if __name__ == "__main__":
    sys.exit(main())
