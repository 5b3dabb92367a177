# ruff: noqa: PLR0917 - compiled functions have no keyword-only arguments
"""Missing joints filled from the maps: for each, an exact arg-max over the whole map that reads few of its tiles."""

from __future__ import annotations

import numpy as np

from kernels.cpu._jit import inner
from kernels.cpu.maps import LOWEST, TILE, Floats, fill_region, quarter, sample, tile_bounds
from kernels.cpu.tags import tag_mean
from kernels.rules import FAR_AWAY, SLACK


@inner
def person_tags(people: Floats, tags: Floats, levels: int, centres: Floats) -> None:
    """centres (P, T) = the mean tag of each person's found joints, in joint order, read at their cells."""
    T, K = tags.shape[:2]
    found = np.empty((K, T), np.float32)
    for p in range(len(people)):
        n = 0
        for k in range(K):
            if people[p, k, 2] > 0:
                for t in range(T):
                    found[n, t] = sample(tags[t, k], levels, int(people[p, k, 1]), int(people[p, k, 0]))
                n += 1
        tag_mean(found, n, centres[p])


@inner
def refine(
    people: Floats, centres: Floats, heat: Floats, heat_levels: int, maxima: Floats, tags: Floats, tag_levels: int
) -> None:
    """Writes each missing joint (value 0) of people (P, K, 3) whose best cell has a value above 0.

    The best cell has the largest `value - rint(tag distance)`, rounded to float32; the first in row-major order wins.
    NaN values are passed over. maxima (K, rows, columns) are the heatmaps' `tile_maxima`.
    """
    P, K, _ = people.shape
    T = tags.shape[0]
    rows, columns = maxima.shape[1:]
    tiles = rows * columns
    W = heat.shape[2] << heat_levels
    low, high = np.empty((T, tiles), np.float32), np.empty((T, tiles), np.float32)
    ready = np.empty(tiles, np.bool_)
    tile_heat = np.empty((tiles, TILE, TILE), np.float32)
    tile_tags = np.empty((tiles, T, TILE, TILE), np.float32)
    limit = np.empty(tiles, np.float32)
    for k in range(K):
        started = False
        for p in range(P):
            if people[p, k, 2] != 0:
                continue
            if not started:  # computed once for all people who lack this joint
                for t in range(T):
                    tile_bounds(tags[t, k], tag_levels, low[t].reshape(rows, columns), high[t].reshape(rows, columns))
                ready.fill(False)
                started = True
            _find_limits(maxima[k].ravel(), low, high, centres[p], limit)
            seed = np.argmax(limit)
            best, at = LOWEST, -1
            for n in range(-1, tiles):
                tile = n if n >= 0 else seed  # first the tile of the highest bound: after it, most others cannot win
                i, j = tile // columns, tile % columns
                if limit[tile] > best or (limit[tile] == best and (i * W + j) * TILE < at):
                    if not ready[tile]:
                        for t in range(T):
                            _decode_tile(tags[t, k], tag_levels, i, j, tile_tags[tile, t])
                        _decode_tile(heat[k], heat_levels, i, j, tile_heat[tile])
                        ready[tile] = True
                    best, at = _search_tile(tile_heat[tile], tile_tags[tile], centres[p], i, j, W, best, at)
            if at >= 0:
                y, x = at // W, at % W
                value = sample(heat[k], heat_levels, y, x)
                if value > 0:
                    quarter(heat[k], heat_levels, y, x, people[p, k])
                    people[p, k, 2] = value


@inner
def _find_limits(maxima: Floats, low: Floats, high: Floats, centre: Floats, limit: Floats) -> None:
    """limit (tiles,) >= value - rint(distance) of every cell of its tile; SIMD loops."""
    limit.fill(0)
    for t in range(len(centre)):
        c = centre[t]
        for n in range(len(limit)):
            a, b = low[t, n], high[t, n]
            below, above = a - c, c - b
            gap = (below if below > above else above) - SLACK * (abs(a) + abs(b) + abs(c))
            square = gap * gap if gap > 0 else np.float32(0)  # NaN, which infinities give, is not > 0
            limit[n] += FAR_AWAY * FAR_AWAY if (a > b) | (c - c != 0) else square  # if all tags are NaN: FAR_AWAY
    for n in range(len(limit)):
        distance = np.sqrt(limit[n]) * (np.float32(1) - SLACK)
        limit[n] = maxima[n] - np.rint(distance if distance < FAR_AWAY else FAR_AWAY)


@inner
def _decode_tile(plane: Floats, levels: int, i: int, j: int, out: Floats) -> None:
    """out (TILE, TILE) = the cells of tile (i, j), NaN beyond the map's edge."""
    H, W = plane.shape[0] << levels, plane.shape[1] << levels
    size = min(TILE, H - i * TILE), min(TILE, W - j * TILE)
    if size != out.shape:
        out.fill(np.nan)
    fill_region(plane, levels, (i * TILE, j * TILE), size, out, (0, 0))


@inner
def _search_tile(
    heat: Floats, tags: Floats, centre: Floats, i: int, j: int, W: int, best: np.float32, at: int
) -> tuple[np.float32, int]:
    """The better of (best, at) and the tile's best cell, as (value - rint(distance), row-major index in the map).

    Each of the TILE columns keeps its own best, so that the loop is SIMD.
    """
    lane_best, lane_row = np.full(TILE, LOWEST, np.float32), np.zeros(TILE, np.int32)
    for y in range(TILE):
        for x in range(TILE):
            dx = tags[0, y, x] - centre[0]
            square = dx * dx
            if len(centre) == 2:
                dy = tags[1, y, x] - centre[1]
                square += dy * dy
            distance = np.sqrt(square)
            distance = distance if distance < FAR_AWAY else FAR_AWAY
            score = heat[y, x] - np.rint(distance)
            better = score > lane_best[x]
            lane_best[x] = score if better else lane_best[x]
            lane_row[x] = y if better else lane_row[x]
    for x in range(TILE):
        index = (i * TILE + int(lane_row[x])) * W + j * TILE + x
        if lane_best[x] > best or (lane_best[x] == best and index < at):
            best, at = lane_best[x], index
    return best, at
