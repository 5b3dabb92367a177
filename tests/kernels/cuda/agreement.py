"""Compare the people that the device and the host found."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kernels.options import DecodeOptions
from tests.reference.decode import unmirror, upsample2

Floats = NDArray[np.float32]
POSITION, VALUE = 1e-3, 1e-4  # pixels; heatmap values and scores
UNDECIDED = 1e-5  # neighbours that differ by less may move a joint by a quarter to either side


def same_people(
    found: tuple[Floats, Floats], wanted: tuple[Floats, Floats], heatmaps: Floats, options: DecodeOptions
) -> int:
    """The number of joints moved to the other side by a quarter; the rest agrees. AssertionError if people differ.

    found, wanted: keypoints (P, K, 3) and scores (P,). heatmaps (T, K, h, w), as given to the decode.
    """
    keypoints, scores = wanted
    assert found[0].shape == keypoints.shape, f"{len(found[0])} people, expected {len(keypoints)}"
    np.testing.assert_allclose(found[0][..., 2], keypoints[..., 2], atol=VALUE, rtol=0)
    np.testing.assert_allclose(found[1], scores, atol=VALUE, rtol=0)
    far = np.abs(found[0][..., :2] - keypoints[..., :2]) > POSITION  # (P, K, 2)
    if not far.any():
        return 0
    cell = 1 if options.project else 2
    heat, _ = unmirror(heatmaps, heatmaps, options)
    heat = upsample2(heat) if options.project else heat
    for p, k, axis in np.argwhere(far):
        moved = abs(found[0][p, k, axis] - keypoints[p, k, axis])
        assert abs(moved - 0.5 * cell) <= POSITION, f"joint {k} of person {p} moved by {moved} pixels"
        x, y = (keypoints[p, k, :2] / cell).astype(int)
        line = heat[k, y] if axis == 0 else heat[k, :, x]
        at = x if axis == 0 else y
        gap = abs(line[min(at + 1, len(line) - 1)] - line[max(at - 1, 0)])
        assert gap < UNDECIDED, f"joint {k} of person {p} went the other way though its neighbours differ by {gap}"
    return int(far.any(axis=-1).sum())
