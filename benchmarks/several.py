"""Frame rates of several live sources: python -m benchmarks.several [--sources 4] [--seconds 10].

The bundled clip is played at its own speed in a loop, as one source and as several, in one run. It prints the
frames a second of all sources, the same divided by one source alone, the slowest source divided by the mean, and the
median latency. Then the several sources run again beside a stream that is not available.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from core.command_line import CommandParser, count, number
from core.spec import ModelSpec
from pipeline import PosePipeline, open_source
from pipeline.models import ENGINES

CLIP = Path(__file__).resolve().parents[1] / "samples" / "crowd.mp4"
AWAY = "rtsp://127.0.0.1:9/nobody"  # the discard port: no server answers
WARM_UP_S = 2.0


def measure(pose: PosePipeline, sources: Sequence[str], seconds: float) -> tuple[dict[str, float], float]:
    """Frames a second of each source by name, and the median latency of all in ms, after a warm-up."""
    frames: Counter[str] = Counter()
    latencies_ms: list[float] = []
    started = time.monotonic() + WARM_UP_S
    results = pose.run(open_source(*sources, realtime=True, loop=True, reconnect=True))
    try:
        for result in results:
            now = time.monotonic()
            if now >= started:
                frames[result.frame.source] += 1
                latencies_ms.append(result.timings["latency"])
            if now >= started + seconds:
                break
    finally:
        results.close()
    return {name: frames[name] / seconds for name in sources}, statistics.median(latencies_ms)


def main() -> None:
    parser = CommandParser(prog="python -m benchmarks.several", description=__doc__)
    parser.add_argument("--sources", type=count, default=4, metavar="N", help="(4)")
    parser.add_argument("--seconds", type=number(float, 1, 600, "1 to 600"), default=10.0, help="of each run (10)")
    parser.add_argument("--engine", choices=ENGINES, default="auto")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, PosePipeline("tiny", engine=arguments.engine) as pose:
        names = [str(Path(folder) / f"{n}.mp4") for n in range(arguments.sources)]
        for name in names:
            shutil.copy(CLIP, name)
        pose.warm_up((640, 480))
        spec: ModelSpec = pose.step.spec
        print(f"{spec.name} on {pose.step.engine}, short side {spec.short_side}, {arguments.seconds:g} s each")
        before, before_ms = measure(pose, names[:1], arguments.seconds)
        several = measure(pose, names, arguments.seconds)
        beside = measure(pose, [*names, AWAY], arguments.seconds)
        after, after_ms = measure(pose, names[:1], arguments.seconds)
    first, last = sum(before.values()), sum(after.values())
    alone = (first + last) / 2
    del beside[0][AWAY]
    print("| | FPS in all | of one alone | slowest of the mean | latency, ms |\n| --- | ---: | ---: | ---: | ---: |")
    print(f"| one source, before and after | {first:.1f}, {last:.1f} | | | {before_ms:.0f}, {after_ms:.0f} |")
    for what, (rates, latency_ms) in (
        (f"{arguments.sources} sources", several),
        ("the same, beside one that is away", beside),
    ):
        total, slowest = sum(rates.values()), min(rates.values())
        fair = slowest / (total / len(rates))
        print(f"| {what} | {total:.1f} | {total / alone:.2f} | {fair:.2f} | {latency_ms:.0f} |")


if __name__ == "__main__":
    main()
