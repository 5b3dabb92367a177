"""The search for missing joints against tests/reference, in the simulator."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernels.cuda.group import UNSEARCHED
from kernels.cuda.refine import refine_kernel
from kernels.cuda.tags import rounded_gap, tag_gap
from tests.kernels.cuda.simulator import LANES, TILE, examples, flat, orders_of, sizes_of, tile_bounds
from tests.reference.decode import mean, tag_distance, upsample2
from tests.reference.decode import refine as reference

pytestmark = [pytest.mark.sim, pytest.mark.filterwarnings("ignore::RuntimeWarning")]  # NaN and inf in scalar arithmetic


def refined(heat, tags, found, project=True, *, bounds=None, blocks=3):
    """keypoints (P, K, 3) of found (P, K, 3) cells of the decode grid; heat (K, h, w), tags (T, K, h/2, w/2)."""
    P, K = found.shape[:2]
    T = len(tags)
    fine_tags = upsample2(upsample2(tags)) if project else upsample2(tags)
    centres = np.full((P, 2), 7, np.float32)
    for p in range(P):
        own = [fine_tags[:, k, int(y), int(x)] for k, (x, y, value) in enumerate(found[p]) if value > 0]
        centres[p, :T] = mean(np.stack(own))
    targets = np.flatnonzero(found[..., 2].ravel() == 0)
    missing = np.concatenate([[len(targets)], targets[::-1], np.zeros(P * K - len(targets))])  # in any order
    searches = np.concatenate([np.full(P * K, UNSEARCHED), np.zeros(P * K, np.int64)])
    keypoints = flat(found)
    maps, tag_maps, order = heat[None], tags, orders_of(K)
    if T == 2:  # as a network gives it: the second frame mirrored, here with joints that are their own twins
        maps, tag_maps = np.stack([heat, heat[..., ::-1]]), np.stack([tags[0], tags[1][..., ::-1]])
    refine_kernel(P, K, T == 2, project, TILE)[(blocks, 1), LANES](
        flat(maps),
        flat(tag_maps),
        sizes_of(*heat.shape),
        order,
        flat(tile_bounds(heat, tags, project) if bounds is None else bounds),
        flat(centres),
        flat(missing, np.int32),
        flat(searches, np.int64),
        keypoints,
    )
    return keypoints.copy_to_host().reshape(found.shape)


def expected(heat, tags, found, project):
    heat = upsample2(heat) if project else heat
    tags = upsample2(upsample2(tags)) if project else upsample2(tags)
    missing = found[..., 2] == 0
    people = reference(found, missing, heat, tags)
    people[..., :2] = np.where(missing[..., None], people[..., :2] * (1 if project else 2), people[..., :2])
    return people


def scene(seed, K=2, people=2, steps=4, T=1):
    """Maps whose values tie often, and people some of whose joints are found."""
    rng = np.random.default_rng(seed)
    heat = (rng.integers(-1, steps, (K, 6, 6)) / steps).astype(np.float32)
    tags = (rng.integers(0, 12, (T, K, 3, 3)) / 4).astype(np.float32)
    found = np.zeros((people, K, 3), np.float32)
    for p in range(people):
        k = rng.integers(K)
        found[p, k] = rng.integers(6), rng.integers(6), 0.5
    return heat, tags, found


@examples(8)
@given(seed=st.integers(0, 2**20), project=st.booleans(), steps=st.sampled_from([2, 64]), T=st.integers(1, 2))
def test_equals_the_reference(seed, project, steps, T):
    heat, tags, found = scene(seed, steps=steps, T=T)
    np.testing.assert_array_equal(refined(heat, tags, found, project), expected(heat, tags, found, project))


def test_nan_is_never_chosen_and_a_nan_tag_is_far_away():
    heat, tags, found = scene(11, people=1)
    missing = int(found[0, 0, 2] > 0)
    heat[missing, 2:4, 2:4] = np.nan
    tags[0, missing, 0, 0] = np.nan
    np.testing.assert_array_equal(refined(heat, tags, found, True), expected(heat, tags, found, True))


def test_a_map_without_contrast_gives_its_first_cell():
    heat, tags = np.full((2, 6, 6), 0.25, np.float32), np.zeros((1, 2, 3, 3), np.float32)
    found = np.array([[[3, 3, 0.5], [0, 0, 0]]], np.float32)
    np.testing.assert_array_equal(refined(heat, tags, found, True)[0, 1], [0.25, 0.25, 0.25])


def test_skipped_tiles_change_nothing():
    heat, tags, found = scene(12, people=1, steps=64)
    loose = tile_bounds(heat, tags)
    loose[:, :, 0], loose[:, :, 1:] = 9, 300  # every tile could win: all are searched
    np.testing.assert_array_equal(refined(heat, tags, found, True), refined(heat, tags, found, bounds=loose))


@pytest.mark.parametrize("blocks", [1, 5, 40])
def test_any_number_of_blocks_gives_the_same(blocks):
    heat, tags, found = scene(13, steps=64)
    np.testing.assert_array_equal(refined(heat, tags, found, True, blocks=blocks), expected(heat, tags, found, True))


def test_joints_worth_nothing_stay_missing():
    heat, tags = np.full((2, 6, 6), -0.5, np.float32), np.zeros((1, 2, 3, 3), np.float32)
    found = np.array([[[3, 3, 0.5], [0, 0, 0]]], np.float32)
    np.testing.assert_array_equal(refined(heat, tags, found, True), found)


@examples(100)
@given(
    low=st.floats(-50, 50, width=32),
    width=st.floats(0, 50, width=32),
    tag=st.floats(-200, 200, width=32),
    at=st.floats(0, 1),
)
def test_a_bound_is_not_below_what_a_cell_is_worth(low, width, tag, at):
    """Also for tags that interpolation rounded a little out of the tile's range."""
    low, high = np.float32(low), np.float32(low) + np.float32(width)
    cell = np.float32(low + (high - low) * np.float32(at)) * np.float32(1 + 2**-22)
    distance = tag_distance(np.array([[cell]]), np.array([[np.float32(tag)]]))[0]
    gap = tag_gap(low, high, np.float32(tag))
    assert rounded_gap(gap, np.float32(0), 1) <= np.rint(distance)
    assert rounded_gap(gap, np.float32(0), 2) <= np.rint(distance)
    assert tag_gap(low, high, np.float32(np.nan)) == 0
