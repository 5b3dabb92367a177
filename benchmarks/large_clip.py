"""Write a long 1920x1080 H.264 video: python -m benchmarks.large_clip OUT.mp4 [--frames 1500]

The frames of the bundled clip, enlarged and repeated, at 25 FPS: to measure the way from a file to its people where
decoding a frame costs more than its pose.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence
from pathlib import Path

import av
import cv2
import numpy as np

from core.command_line import CommandParser, count, file_path

CLIP = Path(__file__).resolve().parents[1] / "samples" / "crowd.mp4"
WH, RATE = (1920, 1080), 25


def write_clip(path: Path, frames: int) -> None:
    with av.open(str(CLIP)) as clip:
        pictures = [frame.to_ndarray(format="bgr24") for frame in clip.decode(video=0)]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", RATE, options={"preset": "veryfast", "crf": "21"})
        stream.width, stream.height = WH
        stream.pix_fmt = "yuv420p"
        for picture in itertools.islice(itertools.cycle(pictures), frames):
            large = np.asarray(cv2.resize(picture, WH, interpolation=cv2.INTER_LINEAR), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(large, format="bgr24")))
        container.mux(stream.encode())


def main(argv: Sequence[str] | None = None) -> int:
    parser = CommandParser(prog="python -m benchmarks.large_clip", description=__doc__)
    parser.add_argument("out", type=file_path, metavar="OUT.mp4")
    parser.add_argument("--frames", type=count, default=1500, metavar="N", help="(1500)")
    options = parser.parse_args(argv)
    write_clip(options.out, options.frames)
    print(f"{options.out}: {options.frames} frames, {options.out.stat().st_size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
