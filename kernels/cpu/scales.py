"""Multi-scale decoding: maps are resized and stored in full, which suits evaluation, not video."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kernels.cpu._jit import entry
from kernels.cpu.decode import DEFAULT, Rules, as_maps, decode_plain, turn_back
from kernels.cpu.maps import Floats
from kernels.options import DecodeOptions


def decode_scales(
    parts: Sequence[tuple[Floats, Floats | None]], size_hw: tuple[int, int], options: DecodeOptions = DEFAULT
) -> tuple[Floats, Floats]:
    """The people of one frame seen at several scales.

    parts: (heatmaps, tags) of each scale, the largest first; heatmaps (T, K, h, w), tags (T, D * K, h', w') with just
    one of them (the authors' scale 1, or the only one), None with the others. T and K are the same throughout.
    Heatmaps are resized to size_hw, the network input of scale 1 (project=False: to the first part's heatmaps), and
    their mean over the scales is decoded; tags are resized to their own scale's heatmaps first, then to the same size.
    Returns as `decode`, x and y in pixels of size_hw. Raises ValueError or TypeError if the parts are not such.
    """
    given = [(i, tags) for i, (_, tags) in enumerate(parts) if tags is not None]
    if len(given) != 1:
        raise ValueError(
            f"tags come with {len(given)} of {len(parts)} parts; expected them with exactly one, of scale 1"
        )
    maps = [as_maps(f"heatmaps of part {i}", heatmaps) for i, (heatmaps, _) in enumerate(parts)]
    tagged, tags = given[0][0], as_maps("tags", given[0][1])
    T, K = maps[0].shape[:2]
    shapes = [m.shape for m in [*maps, tags]]
    fits = tags.shape[:2] in ((T, K), (T, 2 * K)) and all(m.shape[:2] == (T, K) for m in maps)
    if T not in (1, 2) or not fits or any(min(shape[2:]) < 1 for shape in shapes):
        raise ValueError(
            f"heatmaps and tags are {shapes}; expected the same T (1 or 2) and K in all, and K or 2 K channels of tags"
        )
    if min(size_hw) < 1:
        raise ValueError(f"size_hw is {size_hw}; expected two positive sizes")
    hw = size_hw if options.project else maps[0].shape[2:]
    rules = Rules.of(options, K)

    numbers = max(T, tags.shape[1] // K)
    heat, tag = np.zeros((K, *hw), np.float32), np.zeros((numbers, K, *hw), np.float32)
    for i, heatmaps in enumerate(maps):
        # `turn_back` needs tags; if a scale has none, one row replaces them.
        plain, plain_tags = turn_back(heatmaps, tags if i == tagged else heatmaps[:, :, :1].copy(), options)
        _add_resized(plain, heat)
        if i == tagged:
            for t in range(numbers):
                between = np.zeros_like(plain)
                _add_resized(plain_tags[t], between)
                _add_resized(between, tag[t])
    heat /= np.float32(len(maps))
    keypoints, scores = decode_plain(heat, 0, tag, 0, rules)
    keypoints[..., :2] *= np.array([size_hw[1] / hw[1], size_hw[0] / hw[0]], np.float32)
    return keypoints, scores


@entry
def _add_resized(maps: Floats, out: Floats) -> None:
    """out (K, H, W) += maps (K, h, w), resized bilinearly: from max((i + 0.5) * h / H - 0.5, 0), clamped at the end."""
    K, h, w = maps.shape
    H, W = out.shape[1:]
    left, right_weight = np.empty(W, np.int64), np.empty(W, np.float32)
    for x in range(W):
        source = max((x + 0.5) * w / W - 0.5, 0.0)
        left[x] = min(int(source), w - 1)
        right_weight[x] = np.float32(source - left[x])
    one = np.float32(1)
    for k in range(K):
        for y in range(H):
            source = max((y + 0.5) * h / H - 0.5, 0.0)
            top = min(int(source), h - 1)
            b = np.float32(source - top)
            above, below, line = maps[k, top], maps[k, min(top + 1, h - 1)], out[k, y]
            for x in range(W):
                i, r = left[x], right_weight[x]
                j = min(i + 1, w - 1)
                line[x] += (one - b) * ((one - r) * above[i] + r * above[j]) + b * ((one - r) * below[i] + r * below[j])
