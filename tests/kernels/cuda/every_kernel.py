"""One pass through every kernel, small enough for compute-sanitizer: `python -m tests.kernels.cuda.every_kernel`.

The simulator test runs the same pass on smaller shapes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from kernels.colour import Colour
from kernels.cpu import decode as host_decode
from kernels.cpu import match as host_match
from kernels.cpu import preprocess_nv12 as host_nv12
from kernels.cuda import Blocks, Workspace, decode, match, preprocess, preprocess_nv12
from kernels.cuda._cuda import cuda
from kernels.options import DecodeOptions
from tests.kernels.cuda.agreement import same_people
from tests.kernels.cuda.crowds import draw_crowd

NORMAL: dict[str, Any] = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def run_every_kernel(
    hw: tuple[int, int], people: int, options: DecodeOptions, *, K: int, blocks: Blocks | None, sides: int
) -> int:
    """Preprocess of BGR and of NV12, decode of two frames with mirror, twice, and an assignment of `sides`.

    Returns the number of people found.
    """
    rng = np.random.default_rng(people)
    h, w = hw
    frame = cuda.to_device(rng.integers(0, 256, (h, w + 1, 3)).astype(np.uint8))
    image = cuda.to_device(np.zeros((2, 3, 2 * h, 2 * w), np.float32))
    preprocess(frame, image, scale=1.9, center=(w / 2, h / 2), mirror=True, **NORMAL)
    assert (image.copy_to_host()[1] == image.copy_to_host()[0, ..., ::-1]).all()

    nv12 = cuda.to_device(rng.integers(0, 256, (h + h // 2, w)).astype(np.uint8))
    options_of: dict[str, Any] = {"frame_wh": (w, h), "colour": Colour("bt709"), "scale": 1.9, "center": (w / 2, h / 2)}
    preprocess_nv12(nv12, image, mirror=True, **options_of, **NORMAL)
    on_host = np.zeros((3, 2 * h, 2 * w), np.float32)
    host_nv12(nv12.copy_to_host(), on_host, **options_of, **NORMAL)
    assert image.copy_to_host()[0].tobytes() == on_host.tobytes()

    found = 0
    workspace = Workspace((2, 2, K, h, w), options, blocks=blocks)
    for _ in range(2):
        frames = [draw_crowd(rng, people, hw, K=K, T=2) for _ in range(2)]
        heatmaps, tags = (np.stack(maps) for maps in zip(*frames, strict=True))
        result = decode(cuda.to_device(heatmaps), cuda.to_device(tags), None, workspace)
        keypoints, scores, count = (array.copy_to_host() for array in result)
        for n in range(2):
            found += count[n]
            wanted = host_decode(heatmaps[n], tags[n], options)
            same_people((keypoints[n, : count[n]], scores[n, : count[n]]), wanted, heatmaps[n], options)

    distance = (rng.integers(0, 9, (sides, sides)) / 4).astype(np.float32)
    value = rng.uniform(0.1, 1, sides).astype(np.float32)
    columns = cuda.to_device(np.zeros(sides, np.int32))
    match(cuda.to_device(distance), cuda.to_device(value), columns)
    np.testing.assert_array_equal(columns.copy_to_host(), host_match(distance, value))
    return int(found)


if __name__ == "__main__":
    everything = DecodeOptions(min_score=0.05, min_joint=0.05, duplicate_oks=0.9)
    print(run_every_kernel((64, 96), 6, everything, K=17, blocks=None, sides=20), "people, as on the host")
