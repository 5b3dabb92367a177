"""The decode in plain NumPy: one function a step, whole maps in memory, written to be read.

Every implementation (`kernels.cpu`, `kernels.cuda`) is compared with this one. What they share, to the bit where
float32 allows it (a GPU may fuse multiply and add):

* un-mirror first: with T = 2 the heatmap is (plain + mirrored) * 0.5 at the heatmaps' own resolution, then up-sampled;
* `upsample2` once for heatmaps, twice for tags (once if project=False);
* float32 throughout; every threshold is rounded to float32 before it is compared;
* a NaN heatmap value is never a peak, suppresses nobody and is never chosen by refine;
* a tag distance is clipped to 255, and is 255 where it is NaN: in matching and in refine alike;
* of equal values, the first in row-major order of the decode grid wins: among peaks, in top-k and in refine.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.joints import sigmas_for
from kernels.options import DecodeOptions

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

NEAR, FAR = np.float32(0.75), np.float32(0.25)
FAR_AWAY = np.float32(255)


def decode(heatmaps: Floats, tags: Floats, options: DecodeOptions | None = None) -> tuple[Floats, Floats]:
    """As `kernels.cpu.decode`: (T, K, h, w) and (T, D * K, h/2, w/2) to keypoints (P, K, 3) and scores (P,)."""
    options = options or DecodeOptions()
    heat, tag = unmirror(heatmaps, tags, options)  # (K, h, w), (T, K, h/2, w/2)
    tag = upsample2(tag)
    if options.project:
        heat, tag = upsample2(heat), upsample2(tag)
    return decode_maps(heat, tag, options, 1.0 if options.project else 2.0)


def decode_maps(heat: Floats, tag: Floats, options: DecodeOptions, cell: float) -> tuple[Floats, Floats]:
    """Everything after interpolation. heat (K, H, W), tag (T, K, H, W); a decode cell is `cell` input pixels wide."""
    K = heat.shape[0]
    candidates = [top_k(heat[k], peaks(heat[k], options), options.max_people) for k in range(K)]
    people = group(candidates, heat, tag, options)  # (P, K, 3): integer x, y, value
    missing = people[..., 2] == 0
    if options.adjust:
        people = adjust(people, heat)
    scores = person_scores(people)
    strong = scores >= np.float32(options.min_score)
    people, scores, missing = people[strong], scores[strong], missing[strong]
    if options.refine:
        people = refine(people, missing, heat, tag)
    people[..., :2] *= np.float32(cell)
    return filter_people(people, scores, options)


def decode_scales(
    parts: list[tuple[Floats, Floats | None]], size_hw: tuple[int, int], options: DecodeOptions | None = None
) -> tuple[Floats, Floats]:
    """As `kernels.cpu.decode_scales`: heatmaps averaged over scales, tags of the one scale that has them."""
    options = options or DecodeOptions()
    hw = size_hw if options.project else parts[0][0].shape[2:]
    total = np.zeros((1, 1, 1), np.float32)
    tag: Floats | None = None
    for heatmaps, tags in parts:
        heat, own = unmirror(heatmaps, heatmaps if tags is None else tags, options)
        total = np.add(total, resize(heat, hw), dtype=np.float32)
        if tags is not None:
            tag = resize(resize(own, heat.shape[1:]), hw)
    assert tag is not None and hw[0] * size_hw[1] == hw[1] * size_hw[0]
    return decode_maps(np.divide(total, len(parts), dtype=np.float32), tag, options, size_hw[0] / hw[0])


def unmirror(heatmaps: Floats, tags: Floats, options: DecodeOptions) -> tuple[Floats, Floats]:
    """The mirrored half (T = 2) turned back: columns reversed, left and right joints swapped; heatmaps averaged.

    Tags of two numbers (2K channels) are the plain frame's alone, as if they were of two frames.
    """
    K = heatmaps.shape[1]
    heat: Floats = heatmaps[0]
    if len(heatmaps) == 2:
        twin = list(options.flip_for(K))
        heat = (heatmaps[0] + heatmaps[1][twin][..., ::-1]) * np.float32(0.5)
    if tags.shape[1] == 2 * K:
        return heat, np.stack([tags[0, :K], tags[0, K:]])
    if len(heatmaps) == 1:
        return heat, tags
    return heat, np.stack([tags[0], tags[1][twin][..., ::-1]])


def upsample2(maps: Floats) -> Floats:
    """Twice the size, bilinear, pixel centres aligned (align_corners=False): (..., h, w) to (..., 2h, 2w).

    A new pixel is 0.75 of the old one it lies in plus 0.25 of that one's neighbour on its side (at the border, of the
    pixel itself): along rows first, then along columns. Two terms a step, so that mirroring commutes with it exactly.
    """

    def along_last(a: Floats) -> Floats:
        before = np.concatenate([a[..., :1], a[..., :-1]], axis=-1)
        after = np.concatenate([a[..., 1:], a[..., -1:]], axis=-1)
        pair: Floats = np.stack([NEAR * a + FAR * before, NEAR * a + FAR * after], axis=-1)
        return pair.reshape(*a.shape[:-1], -1)

    return along_last(along_last(maps).swapaxes(-1, -2)).swapaxes(-1, -2)


def resize(maps: Floats, hw: tuple[int, ...]) -> Floats:
    """To any size, bilinear, pixel centres aligned: (..., h, w) to (..., H, W)."""

    def along_last(a: Floats, size: int) -> Floats:
        n = a.shape[-1]
        source = np.maximum((np.arange(size) + 0.5) * n / size - 0.5, 0)
        low = np.minimum(source.astype(int), n - 1)
        weight = (source - low).astype(np.float32)
        mixed: Floats = (1 - weight) * a[..., low] + weight * a[..., np.minimum(low + 1, n - 1)]
        return mixed

    return along_last(along_last(maps, hw[1]).swapaxes(-1, -2), hw[0]).swapaxes(-1, -2)


def peaks(heat: Floats, options: DecodeOptions) -> NDArray[np.bool_]:
    """Where an (H, W) map is above the threshold and beats its window.

    It must be > each window neighbour that comes earlier in row-major order and >= each later one: one peak a plateau.
    """
    H, W = heat.shape
    r = options.nms_size // 2
    heat = np.where(np.isnan(heat), np.float32(-np.inf), heat)
    padded = np.pad(heat, r, constant_values=-np.inf)
    keep = heat > np.float32(options.threshold)
    for dy in range(-r, r + 1):
        for dx in range(-r, r + 1):
            other = padded[r + dy : r + dy + H, r + dx : r + dx + W]
            if (dy, dx) < (0, 0):
                keep &= heat > other
            elif (dy, dx) > (0, 0):
                keep &= heat >= other
    return keep


def top_k(heat: Floats, keep: NDArray[np.bool_], k: int) -> Ints:
    """The k strongest kept cells, (M, 2) of (y, x): by falling value, then by row-major index."""
    cells = np.argwhere(keep)  # row-major, and the sort is stable
    order = np.argsort(-heat[keep], kind="stable")[:k]
    return cells[order]


def mean(values: Floats) -> Floats:
    """The float32 mean over the first axis of (n, T), added in the order of the authors' NumPy.

    T = 2, or n < 8: one after another. Else eight running sums, combined as ((0+1)+(2+3))+((4+5)+(6+7)), then the rest.
    """
    n, T = values.shape
    total = np.zeros(T, np.float32)
    start = 0
    if T == 1 and n >= 8:
        lanes = values[:8].copy()
        for start in range(8, n - n % 8, 8):
            lanes += values[start : start + 8]
        start = n - n % 8
        total = ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) + ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]))
    for row in values[start:]:
        total = total + row
    return total / np.float32(n)


def tag_distance(a: Floats, b: Floats) -> Floats:
    """Euclidean over the last axis (T), float32, at most 255, and 255 where it is NaN."""
    square = (a - b) ** 2
    distance = np.sqrt(square[..., 0] + square[..., 1]) if square.shape[-1] == 2 else np.sqrt(square[..., 0])
    return np.where(distance < FAR_AWAY, distance, FAR_AWAY).astype(np.float32)  # NaN compares false


def costs(distance: Floats, value: Floats) -> list[list[int]]:
    """(100 * rint(D) * 2^14 - rint(value * 2^14)) * 2^23 + rint(D * 2^8), halves to even, as Python integers.

    D is clipped to 255 (NaN: 255) and value to -255..255 (NaN: 0), which keeps every sum far inside int64.
    """
    rows = []
    for r in range(len(value)):
        v = np.float32(0) if np.isnan(value[r]) else np.clip(value[r], -FAR_AWAY, FAR_AWAY)
        row = []
        for unclipped in distance[r]:
            d = unclipped if unclipped < FAR_AWAY else FAR_AWAY
            criterion = 100 * int(np.rint(d)) * 2**14 - int(np.rint(v * np.float32(2**14)))
            row.append(criterion * 2**23 + int(np.rint(d * np.float32(2**8))))
        rows.append(row)
    return rows


def match(distance: Floats, value: Floats) -> Ints:
    """The column of each row, -1 if unmatched; min(R, C) pairs of the smallest total `costs`.

    With R > C, R - C columns of cost 0 are appended: who gets one is unmatched. Then rows are inserted in order, each
    by a shortest augmenting path over reduced costs (Dijkstra). The next column is the unvisited one of the smallest
    tentative distance, the lowest on ties; a tentative distance is replaced only by a strictly smaller one.
    """
    R, C = distance.shape
    cost = [row + [0] * max(R - C, 0) for row in costs(distance, value)]
    N = max(R, C)
    u, v = [0] * R, [0] * N  # potentials of rows and columns
    owner = [-1] * N  # the row that holds a column
    for start in range(R):
        reach: list[Any] = [float("inf")] * N
        parent = [-1] * N  # the row from which a column was reached
        visited = [False] * N
        row, length = start, 0
        while True:
            for c in range(N):
                step = length + cost[row][c] - u[row] - v[c]
                if not visited[c] and step < reach[c]:
                    reach[c], parent[c] = step, row
            column = min((c for c in range(N) if not visited[c]), key=lambda c: reach[c])
            length = reach[column]
            visited[column] = True
            if owner[column] < 0:
                break
            row = owner[column]
        u[start] += length
        for c in range(N):
            if visited[c] and c != column:
                u[owner[c]] += length - reach[c]
                v[c] -= length - reach[c]
        while column >= 0:  # hand the columns along the path over
            row = parent[column]
            owner[column], column = row, next((c for c in range(N) if owner[c] == row and c != column), -1)
    result = np.full(R, -1, np.int64)
    for c in range(C):
        if owner[c] >= 0:
            result[owner[c]] = c
    return result


def group(candidates: list[Ints], heat: Floats, tag: Floats, options: DecodeOptions) -> Floats:
    """People from each joint's candidates, (P, K, 3) of integer x, y and value; (0, 0, 0) where a joint is missing.

    A group is an index, and its tag the mean of its joints' tags in the order in which they joined.
    """
    K = heat.shape[0]
    people: list[Floats] = []
    members: list[list[Floats]] = []
    for k in options.order_for(K):
        ys, xs = candidates[k].T
        values, own = heat[k, ys, xs], tag[:, k, ys, xs].T  # (R,), (R, T)
        columns, distance = np.full(len(ys), -1), np.zeros((len(ys), 0), np.float32)
        if people:
            centres = np.stack([mean(np.stack(m)) for m in members])  # (C, T)
            distance = tag_distance(own[:, None], centres[None])
            columns = match(distance, values)
        for r in range(len(ys)):
            column = columns[r]
            if column < 0 or distance[r, column] >= np.float32(options.tag_threshold):
                if len(people) == options.max_people:
                    continue
                column = len(people)
                people.append(np.zeros((K, 3), np.float32))
                members.append([])
            people[column][k] = xs[r], ys[r], values[r]
            members[column].append(own[r])
    return np.stack(people) if people else np.zeros((0, K, 3), np.float32)


def quarter(heat: Floats, y: int, x: int) -> tuple[np.float32, np.float32]:
    """The centre of cell (y, x), a quarter towards the larger of its neighbours; on ties towards the smaller index."""
    H, W = heat.shape
    right = heat[y, min(x + 1, W - 1)] > heat[y, max(x - 1, 0)]
    below = heat[min(y + 1, H - 1), x] > heat[max(y - 1, 0), x]
    return np.float32(x + (0.75 if right else 0.25)), np.float32(y + (0.75 if below else 0.25))


def adjust(people: Floats, heat: Floats) -> Floats:
    """Every found joint moved by `quarter`."""
    people = people.copy()
    for p, k in np.argwhere(people[..., 2] > 0):
        x, y, _ = people[p, k]
        people[p, k, :2] = quarter(heat[k], int(y), int(x))
    return people


def person_scores(people: Floats) -> Floats:
    """The mean of all K values, zeros of missing joints included, in the order of `mean`."""
    return np.array([mean(person[:, 2:3])[0] for person in people], np.float32)


def refine(people: Floats, missing: NDArray[np.bool_], heat: Floats, tag: Floats) -> Floats:
    """Missing joints filled: the cell of the largest value - rint(tag distance), if its value is above 0.

    The person's tag is the mean over its found joints in joint-index order. The first cell in row-major order wins;
    value - rint(distance) is rounded to float32 before it is compared, so ties are common where the distance is >= 1.
    """
    people = people.copy()
    for p in range(len(people)):
        found = np.flatnonzero(~missing[p])
        xs, ys = people[p, found, 0].astype(int), people[p, found, 1].astype(int)
        centre = mean(tag[:, found, ys, xs].T)  # (T,)
        for k in np.flatnonzero(missing[p]):
            worth = heat[k] - np.rint(tag_distance(np.moveaxis(tag[:, k], 0, -1), centre))
            worth = np.where(np.isnan(worth), np.float32(-np.inf), worth)
            y, x = np.unravel_index(int(worth.argmax()), worth.shape)
            if heat[k, y, x] > 0:
                people[p, k] = *quarter(heat[k], int(y), int(x)), heat[k, y, x]
    return people


def oks(person: Floats, reference: Floats) -> float:
    """How much of `person` (K, 3) the stronger `reference` explains, 0 to 1.

    The mean, over the person's found joints, of exp(-d^2 / (8 s^2 area)), or 0 where the reference lacks the joint;
    area is that of the box around the reference's found joints. With no area only equal positions count.
    """
    found, known = person[:, 2] > 0, reference[:, 2] > 0
    if not found.any() or not known.any():
        return 0.0
    x, y = reference[known, 0].astype(float), reference[known, 1].astype(float)
    area = (x.max() - x.min()) * (y.max() - y.min())
    total = 0.0
    for k in np.flatnonzero(found & known):
        square = ((person[k, :2].astype(float) - reference[k, :2]) ** 2).sum()
        sigma = sigmas_for(len(person))[k]
        if area > 0:
            total += float(np.exp(-square / (8 * sigma**2 * area)))
        elif square == 0:
            total += 1.0
    return total / int(found.sum())


def filter_people(people: Floats, scores: Floats, options: DecodeOptions) -> tuple[Floats, Floats]:
    """Duplicates dropped, then weak joints zeroed. The order of people stays.

    Duplicates: strongest first (ties: the earlier), one is kept unless its `oks` with a kept one exceeds the limit.
    """
    if options.duplicate_oks is not None:
        kept: list[int] = []
        for p in np.argsort(-scores, kind="stable"):
            if all(oks(people[p], people[q]) <= options.duplicate_oks for q in kept):
                kept.append(int(p))
        people, scores = people[sorted(kept)], scores[sorted(kept)]
    weak = people[..., 2] < np.float32(options.min_joint)
    return np.where(weak[..., None], np.float32(0), people), scores
