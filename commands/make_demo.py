"""Makes the pictures of the README from the bundled clip: python -m commands.make_demo [--model small]

`demo.webp` is an animation of the second half, as `make demo` draws it; `crowd.jpg` is a frame as the camera sees it.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray

SAMPLES = Path(__file__).resolve().parents[1] / "samples"
CLIP = SAMPLES / "crowd.mp4"
FIRST, EVERY = 125, 2  # of the clip's frames, those that are shown
STILL = 235
QUALITY, JPEG_QUALITY = 60, 92


def main() -> None:
    from pipeline import PosePipeline, open_source
    from pipeline.draw import draw_people

    parser = argparse.ArgumentParser(prog="python -m commands.make_demo", description=__doc__.partition(":")[0])
    parser.add_argument("--model", default="small")
    parser.add_argument("--out", type=Path, default=SAMPLES, help="folder (samples/)")
    options = parser.parse_args()
    with PosePipeline(options.model) as pose:
        results = pose.run(open_source(str(CLIP)))
        drawn = (draw_people(np.array(result.frame.image), result.people) for result in results)
        write_animation(options.out / "demo.webp", islice(drawn, FIRST, None, EVERY), interval_s=Fraction(EVERY, 25))
    still = next(islice(open_source(str(CLIP)), STILL, None)).image
    cv2.imwrite(str(options.out / "crowd.jpg"), still, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])


def write_animation(path: Path, pictures: Iterable[NDArray[np.uint8]], *, interval_s: Fraction) -> None:
    """Write pictures (H, W, 3) uint8 BGR as an animated WebP that repeats without end."""
    with av.open(str(path), "w", format="webp", options={"loop": "0"}) as file:
        stream = file.add_stream("libwebp_anim", rate=1 / interval_s)
        stream.pix_fmt = "yuv420p"
        stream.options = {"quality": str(QUALITY)}
        for picture in pictures:
            if not stream.codec_context.is_open:
                stream.height, stream.width = picture.shape[:2]
            file.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="bgr24")))
        file.mux(stream.encode())


if __name__ == "__main__":
    main()
