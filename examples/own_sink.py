"""A custom sink that counts people per second, as CSV: python examples/own_sink.py [VIDEO] [OUT] [FRAMES]"""

import sys
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np
from numpy.typing import NDArray

from pipeline import PosePipeline, Result, open_source
from pipeline.sinks import Sink


class CountSink(Sink):
    """The largest number of people in each second, written when the sink is closed."""

    needs_picture = False  # it needs no drawing

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8")  # opened now, so that a wrong path is reported at once
        self._maximum: dict[int, int] = defaultdict(int)

    def write(self, result: Result, picture: NDArray[np.uint8]) -> None:
        second = int(result.frame.time_s)
        self._maximum[second] = max(self._maximum[second], len(result.people))

    def close(self) -> None:
        if not self._file.closed:
            self._file.writelines(f"{second},{people}\n" for second, people in sorted(self._maximum.items()))
            self._file.close()


def main(video: str = str(ROOT / "samples" / "crowd.mp4"), out: str = "counts.csv", frames: str = "100") -> None:
    with PosePipeline("small") as pose, CountSink(Path(out)) as sink:
        for result in pose.run(open_source(video), limit=int(frames)):
            sink.write(result, result.frame.image)
    print(Path(out).read_text(encoding="utf-8"), end="")


if __name__ == "__main__":
    main(*sys.argv[1:])
