"""Missing joints filled from the maps: per person and joint, an exact arg-max over the whole map that looks at few tiles."""

from __future__ import annotations

import numpy as np

from kernels.cpu._jit import inner
from kernels.cpu.grouping import quarter
from kernels.cpu.maps import LOWEST, TILE, Floats, fill_region, sample, tile_bounds
from kernels.cpu.matching import FAR_AWAY, tag_mean

NO_TAG = np.float32(1e-6)  # relative slack of tile bounds: twice-doubled tags round to within 4 ulp of their corners


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

    The best cell has the largest `value - rint(tag distance)`, rounded to float32; the first in row-major order wins. NaN
    values are passed over. maxima (K, rows, columns) are the heatmaps' `tile_maxima`.
    """
    P, K, _ = people.shape
    T = tags.shape[0]
    tiles = maxima.shape[1] * maxima.shape[2]
    W = heat.shape[2] << heat_levels
    low, high = np.empty((T, *maxima.shape[1:]), np.float32), np.empty((T, *maxima.shape[1:]), np.float32)
    ready = np.empty(tiles, np.bool_)
    tile_heat = np.empty((tiles, TILE, TILE), np.float32)
    tile_tags = np.empty((tiles, T, TILE, TILE), np.float32)
    limit = np.empty(tiles, np.float32)
    for k in range(K):
        started = False
        for p in range(P):
            if people[p, k, 2] != 0:
                continue
            if not started:  # what all who miss this joint share
                for t in range(T):
                    tile_bounds(tags[t, k], tag_levels, low[t], high[t])
                ready[:] = False
                started = True
            seed = _limits(maxima[k], low, high, centres[p], limit)
            best, at = LOWEST, -1
            for n in range(-1, tiles):
                tile = n if n >= 0 else seed  # first the most promising one: most others then cannot win
                i, j = tile // maxima.shape[2], tile % maxima.shape[2]
                if limit[tile] > best or (limit[tile] == best and i * TILE * W + j * TILE < at):
                    if not ready[tile]:
                        _decode_tile(
                            heat[k], heat_levels, tags[:, k], tag_levels, i, j, tile_heat[tile], tile_tags[tile]
                        )
                        ready[tile] = True
                    best, at = _search_tile(tile_heat[tile], tile_tags[tile], centres[p], i, j, W, best, at)
            if at >= 0:
                y, x = at // W, at % W
                value = sample(heat[k], heat_levels, y, x)
                if value > 0:
                    quarter(heat[k], heat_levels, y, x, people[p, k])
                    people[p, k, 2] = value


@inner
def _limits(maxima: Floats, low: Floats, high: Floats, centre: Floats, limit: Floats) -> int:
    """limit[tile] >= value - rint(distance) of each of the tile's cells; returns the tile where it is largest."""
    seed = 0
    T, columns = len(centre), maxima.shape[1]
    for i in range(maxima.shape[0]):
        for j in range(columns):
            square = np.float32(0)
            for t in range(T):
                a, b = low[t, i, j], high[t, i, j]
                below, above = a - centre[t], centre[t] - b
                gap = below if below > above else above
                gap -= NO_TAG * (abs(a) + abs(b) + abs(centre[t]))
                if a > b or centre[t] - centre[t] != 0:
                    gap = FAR_AWAY  # nothing but NaN: every distance counts as 255
                if gap > 0:  # false for NaN, which infinities give
                    square += gap * gap
            gap = np.sqrt(square) * (np.float32(1) - NO_TAG)
            n = i * columns + j
            limit[n] = maxima[i, j] - np.rint(gap if gap < FAR_AWAY else FAR_AWAY)
            if limit[n] > limit[seed]:
                seed = n
    return seed


@inner
def _decode_tile(
    heat: Floats, heat_levels: int, tags: Floats, tag_levels: int, i: int, j: int, heat_out: Floats, tags_out: Floats
) -> None:
    """The cells of tile (i, j): heat (TILE, TILE), NaN beyond the map's edge, and tags (T, TILE, TILE)."""
    H, W = heat.shape[0] << heat_levels, heat.shape[1] << heat_levels
    rows, columns = min(TILE, H - i * TILE), min(TILE, W - j * TILE)
    if rows < TILE or columns < TILE:
        heat_out[:] = np.nan
        tags_out[:] = 0
    fill_region(heat, heat_levels, i * TILE, j * TILE, rows, columns, heat_out)
    for t in range(len(tags)):
        fill_region(tags[t], tag_levels, i * TILE, j * TILE, rows, columns, tags_out[t])


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
            worth = heat[y, x] - np.rint(distance)
            better = worth > lane_best[x]
            lane_best[x] = worth if better else lane_best[x]
            lane_row[x] = y if better else lane_row[x]
    for x in range(TILE):
        index = (i * TILE + np.int64(lane_row[x])) * W + j * TILE + x
        if lane_best[x] > best or (lane_best[x] == best and index < at):
            best, at = lane_best[x], index
    return best, at
