"""CPU time of --save's stages for a frame: python -m benchmarks.drawing [--frames 200] [--x264 me=hex:cabac=0]

Draws the sample clip's own people (its ground truth, with ids) at 640x480 and ten of them at 1920x1080, converts and
encodes them by VideoSink. Prints the median CPU milliseconds of the calling thread for drawing and converting, and the
process's for encoding, whose threads are x264's own; then the size of the video and its PSNR against what was drawn.
--x264 gives parameters that are added to VideoSink's or replace them. CPU time, unlike wall time, hardly depends on
other programs, but for the caches that they share.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from unittest.mock import patch

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from core.command_line import CommandParser, count
from pipeline.draw import draw_people
from pipeline.sinks import VideoSink
from pipeline.sinks.video import X264
from pipeline.types import Frame, People, Result

ROOT = Path(__file__).resolve().parents[1]
LARGE, TEN = (1920, 1080), 10
RATE = 25


def drawn_frames(wh: tuple[int, int], people: int | None, number: int) -> list[tuple[NDArray[np.uint8], People]]:
    """Pictures of the sample clip, scaled to `wh`, with its people; `people`: exactly so many, some shown twice."""
    truth = json.loads((ROOT / "samples" / "crowd.json").read_text(encoding="utf-8"))
    of_image: dict[int, list[list[float]]] = {}
    for one in truth["annotations"]:
        of_image.setdefault(one["image_id"], []).append(one["keypoints"])
    found = []
    with av.open(str(ROOT / "samples" / "crowd.mp4")) as clip:
        for image, picture in zip(truth["images"], clip.decode(video=0), strict=False):
            points = np.asarray(of_image.get(image["id"], []), np.float32).reshape(-1, 17, 3)
            if people is not None and len(points):
                points = np.concatenate([points] * -(-people // len(points)))[:people]
            xy = points[..., :2] * np.array([wh[0] / image["width"], wh[1] / image["height"]], np.float32)
            seen = (points[..., 2] > 0).astype(np.float32)
            crowd = People(xy, seen, seen.mean(axis=1, dtype=np.float32), np.arange(1, len(points) + 1))
            found.append((np.asarray(cv2.resize(picture.to_ndarray(format="bgr24"), wh), np.uint8), crowd))
            if len(found) == number:
                break
    return found


def cpu_ms(work: Callable[[], object], clock: Callable[[], float] = time.thread_time) -> float:
    before = clock()
    work()
    return (clock() - before) * 1e3


def measure(wh: tuple[int, int], people: int | None, number: int) -> dict[str, float]:
    """Medians of drawing (with the copy of the frame), means of writing, in CPU ms a frame; kB a frame; PSNR in dB."""
    frames = drawn_frames(wh, people, number)
    draw_ms: list[float] = []
    pictures: list[NDArray[np.uint8]] = []
    canvas = np.empty((wh[1], wh[0], 3), np.uint8)
    for image, crowd in [*frames[:10], *frames]:  # ten to warm up

        def draw(image: NDArray[np.uint8] = image, crowd: People = crowd) -> None:
            np.copyto(canvas, image)
            draw_people(canvas, crowd)

        draw_ms.append(cpu_ms(draw))
        pictures.append(canvas.copy() if wh[0] <= 640 or len(pictures) < 60 else pictures[-1])
    pictures, draw_ms = pictures[10:], draw_ms[10:]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "drawn.mp4"
        before = time.process_time()
        with VideoSink(path) as sink:
            for index, picture in enumerate(pictures):
                sink.write(Result(Frame(picture, index, index / RATE), frames[index][1]), picture)
        write_ms = (time.process_time() - before) * 1e3 / len(pictures)
        squared = []
        with av.open(str(path)) as video:
            for written, picture in zip(video.decode(video=0), pictures, strict=True):
                decoded = written.to_ndarray(format="bgr24").astype(np.int32)
                squared.append(float(np.square(decoded - picture).mean()))
        return {
            "people": sum(len(crowd) for _, crowd in frames) / len(frames),
            "draw": statistics.median(draw_ms),
            "write": write_ms,
            "kB": path.stat().st_size / 1e3 / len(pictures),
            "PSNR": 10 * np.log10(255**2 / statistics.mean(squared)),
        }


def main(argv: Sequence[str] | None = None) -> int:
    parser = CommandParser(prog="python -m benchmarks.drawing", description=__doc__)
    parser.add_argument("--frames", type=count, default=200, metavar="N", help="of the clip (200)")
    parser.add_argument("--x264", default="", metavar="A=B:…", help="parameters, after those of VideoSink")
    arguments = parser.parse_args(argv)
    number = arguments.frames
    cv2.setNumThreads(1)
    print("| frame | people | draw, ms | convert and encode, ms | kB a frame | PSNR, dB |\n| --- |" + " ---: |" * 5)
    for wh, people in (((640, 480), None), (LARGE, TEN)):
        with patch.dict(X264, {"x264-params": ":".join(filter(None, [X264["x264-params"], arguments.x264]))}):
            found = measure(wh, people, number)
        print(
            f"| {wh[0]}x{wh[1]} | {found['people']:.1f} | {found['draw']:.2f} | {found['write']:.2f} "
            f"| {found['kB']:.1f} | {found['PSNR']:.1f} |"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
