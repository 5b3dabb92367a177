"""Network outputs of one frame to people: `decode`, and the compiled function behind it and `decode_scales`."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from core.joints import sigmas_for
from kernels.cpu._jit import entry
from kernels.cpu.filter import drop_duplicates, drop_weak, hide_joints
from kernels.cpu.group import group, score
from kernels.cpu.maps import TILE, Floats, Ints, quarter, sample, tile_maxima, unmirror
from kernels.cpu.peaks import find_peaks
from kernels.cpu.refine import person_tags, refine
from kernels.options import DecodeOptions

DEFAULT = DecodeOptions()


class Rules(NamedTuple):
    """DecodeOptions in the types of the compiled code."""

    order: Ints
    sigmas: NDArray[np.float64]
    max_people: int
    radius: int
    threshold: np.float32
    tag_threshold: np.float32
    min_score: np.float32
    min_joint: np.float32
    duplicate_oks: float  # inf: keep all
    adjust: bool
    refine: bool

    @classmethod
    def of(cls, options: DecodeOptions, joints: int) -> Rules:
        return cls(
            order=np.array(options.order_for(joints), np.int64),
            sigmas=np.array(sigmas_for(joints), np.float64),
            max_people=options.max_people,
            radius=options.nms_size // 2,
            threshold=np.float32(options.threshold),
            tag_threshold=np.float32(options.tag_threshold),
            min_score=np.float32(options.min_score),
            min_joint=np.float32(options.min_joint),
            duplicate_oks=float("inf") if options.duplicate_oks is None else float(options.duplicate_oks),
            adjust=bool(options.adjust),
            refine=bool(options.refine),
        )


def decode(heatmaps: Floats, tags: Floats, options: DecodeOptions = DEFAULT) -> tuple[Floats, Floats]:
    """The people of one frame, as the authors' code groups them.

    heatmaps: (T, K, h, w) at 1/2 of the network input and tags: (T, D * K, h/2, w/2), float32, as the network gives.
    T is 1, or 2 with the mirrored frame second: its columns are mirrored back and left and right joints swapped here.
    D is 1, or 2 where a tag is two numbers: then the plain frame's tags count alone, so that no tag is longer than two.
    Returns keypoints (P, K, 3) float32: x, y in network-input pixels (pixel centres at +0.5 unless adjust=False) and
    value, all 0 for a missing joint; and scores (P,) float32. People in the order in which grouping opened them.
    Raises ValueError if shapes are not these, TypeError if types are not, ValueError if K has no joint order.

    Arithmetic is float32. Maps are doubled on the fly: heatmaps once, tags twice (project=False: never and once).
    NaN is never a peak nor a refined joint; as a tag it is 255 away from every other. Several threads may call.
    Read-only or strided input is copied.
    Source: Newell et al. 2017, sec. 3; HigherHRNet (Cheng et al. 2020), released code.
    """
    heatmaps, tags = as_maps("heatmaps", heatmaps), as_maps("tags", tags)
    T, K, h, w = heatmaps.shape
    shapes = [(T, D * K, h // 2, w // 2) for D in (1, 2)]
    if T not in (1, 2) or min(h, w) < 2 or tags.shape not in shapes or h % 2 or w % 2:
        raise ValueError(
            f"heatmaps are {heatmaps.shape} and tags {tags.shape}; expected (T, K, h, w) and (T, D * K, h/2, w/2), "
            "T and D 1 or 2"
        )
    rules = Rules.of(options, K)
    heat, plain_tags = turn_back(heatmaps, tags, options)
    if options.project:
        return decode_plain(heat, 1, plain_tags, 2, rules)  # type: ignore[no-any-return]
    keypoints, scores = decode_plain(heat, 0, plain_tags, 1, rules)
    keypoints[..., :2] *= 2
    return keypoints, scores


def as_maps(name: str, maps: ArrayLike) -> Floats:
    """The maps as the compiled code needs them: 4-D, float32, C-contiguous, writable; copied only if they differ."""
    array = np.asarray(maps)
    if array.dtype != np.float32:
        raise TypeError(f"{name} are {array.dtype}; expected float32: pass {name}.astype(np.float32)")
    if array.ndim != 4:
        raise ValueError(f"{name} are {array.shape}; expected four axes (T, K, height, width)")
    return np.require(array, requirements=["C", "W"])


def turn_back(heatmaps: Floats, tags: Floats, options: DecodeOptions) -> tuple[Floats, Floats]:
    """heat (K, h, w) and tags (T or D, K, h', w') in the plain frame's columns and joints: see `maps.unmirror`."""
    T, K = heatmaps.shape[:2]
    pairs: Floats | None = None
    if tags.shape[1] == 2 * K:
        pairs = tags[0].reshape(2, K, *tags.shape[2:])
        tags = np.empty((T, K, 0, 0), np.float32)  # the mirrored frame's tags are not used
    if T == 1:
        plain: Floats = heatmaps[0]
        return plain, tags if pairs is None else pairs
    both: tuple[Floats, Floats] = unmirror(heatmaps, tags, np.array(options.flip_for(heatmaps.shape[1]), np.int64))
    return both if pairs is None else (both[0], pairs)


@entry
def decode_plain(heat: Floats, heat_levels: int, tags: Floats, tag_levels: int, rules: Rules) -> tuple[Floats, Floats]:
    """heat (K, h, w) and tags (T or D, K, h', w'), as the plain frame lies, to keypoints (P, K, 3) in cells and scores.

    `levels` as in `kernels.cpu.maps`: the two must double to the same size.
    """
    K, M, T = len(heat), rules.max_people, len(tags)
    H, W = heat.shape[1] << heat_levels, heat.shape[2] << heat_levels
    maxima = np.empty((K, -(-H // TILE), -(-W // TILE)), np.float32)
    values, cells, counts = np.empty((K, M), np.float32), np.empty((K, M), np.int64), np.empty(K, np.int64)
    peak_tags = np.empty((T, K, M), np.float32)
    for k in range(K):
        tile_maxima(heat[k], heat_levels, maxima[k])
        counts[k] = find_peaks(heat[k], heat_levels, maxima[k], rules.radius, rules.threshold, values[k], cells[k])
        for t in range(T):
            for m in range(counts[k]):
                peak_tags[t, k, m] = sample(tags[t, k], tag_levels, cells[k, m] // W, cells[k, m] % W)

    people, scores = np.zeros((M, K, 3), np.float32), np.empty(M, np.float32)
    P = group(values, cells, counts, peak_tags, W, rules.order, rules.tag_threshold, people)
    score(people[:P], scores[:P])
    P = drop_weak(people[:P], scores[:P], rules.min_score)
    centres = np.empty((P, T), np.float32)
    person_tags(people[:P], tags, tag_levels, centres)  # before x and y change from cells to pixels
    found = people[:P, :, 2] > 0
    if rules.refine:
        refine(people[:P], centres, heat, heat_levels, maxima, tags, tag_levels)
    if rules.adjust:
        for p in range(P):
            for k in range(K):
                if found[p, k]:
                    quarter(heat[k], heat_levels, int(people[p, k, 1]), int(people[p, k, 0]), people[p, k])
    if rules.duplicate_oks < np.inf:
        P = drop_duplicates(people[:P], scores[:P], rules.sigmas, rules.duplicate_oks)
    hide_joints(people[:P], rules.min_joint)
    return people[:P].copy(), scores[:P].copy()
