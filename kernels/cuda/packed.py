# mypy: disable-error-code="no-untyped-def, no-untyped-call"
"""The people of a decode in one flat float32 array, so that one copy brings them to the host. No kernel here.

keypoints (N, P, K, 3), then scores (N, P), then count (N,) as the bits of int32; P is max_people.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kernels.cuda._cuda import DeviceArray, device, mad, mul32


@device
def scores_place(n, frames, max_people, fields):
    """Where the scores of image n begin. fields: values of the keypoints of an image, max_people * K * 3."""
    return mad(n, max_people, mul32(frames, fields))


@device
def count_place(n, frames, max_people, fields):
    return mad(frames, fields + max_people, n)


def packed_size(frames: int, people: int, joints: int) -> int:
    """Values of the array."""
    return frames * (people * joints * 3 + people + 1)


def unpack_people(
    packed: NDArray[np.float32], shape: tuple[int, int, int]
) -> tuple[DeviceArray, DeviceArray, DeviceArray]:
    """keypoints (N, P, K, 3), scores (N, P) and count (N,) int32 of a host copy of the array, without a copy.

    shape: N, P, K.
    """
    N, P, K = shape
    keypoints, scores, count = np.split(packed, [N * P * K * 3, N * P * K * 3 + N * P])
    return keypoints.reshape(N, P, K, 3), scores.reshape(N, P), count.view(np.int32)
