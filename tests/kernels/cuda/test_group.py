"""Grouping, joint by joint, against tests/reference, in the simulator."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernels.cuda.group import UNSEARCHED, group_kernel, shared_bytes
from kernels.cuda.packed import packed_size, unpack_people
from kernels.options import DecodeOptions
from tests.kernels.cuda.simulator import examples, flat, on_device, orders_of
from tests.reference.decode import group as reference
from tests.reference.decode import mean, person_scores

pytestmark = [pytest.mark.sim]
LANES = 8


def grouped(candidates, heat, tag, options, lanes=LANES):
    """keypoints, scores, count and centres of candidates [(M, 2) of (y, x)] on heat (K, H, W) and tag (T, K, H, W)."""
    T, K = tag.shape[:2]
    max_people, joint_order = options.max_people, options.order_for(K)
    found, totals = np.full((1, K, 5, max_people), 7, np.float32), np.zeros((1, K), np.int32)
    for step, k in enumerate(joint_order):
        ys, xs = candidates[k].T
        totals[0, step] = len(ys)
        found[0, step, :, : len(ys)] = [
            xs,
            ys,
            heat[k, ys, xs],
            tag[0, k, ys, xs],
            tag[1, k, ys, xs] if T == 2 else 0 * ys,
        ]
    centres = on_device(np.full(max_people * 2, 7, np.float32))
    missing = on_device(np.full(1 + max_people * K, -1, np.int32))
    searches = on_device(np.full(2 * max_people * K, 7, np.int64))
    packed = on_device(np.full(packed_size(1, max_people, K), 7, np.float32))
    thresholds = (np.float32(options.tag_threshold), np.float32(options.min_score))
    group_kernel(max_people, K, T == 2, lanes)[1, lanes](
        flat(found),
        on_device(totals),
        orders_of(K, joint_order=joint_order),
        thresholds,
        centres,
        missing,
        searches,
        packed,
    )
    (keypoints,), (scores,), (count,) = unpack_people(packed.copy_to_host(), (1, max_people, K))
    centres = centres.copy_to_host().reshape(max_people, 2)
    missing, searches = missing.copy_to_host(), searches.copy_to_host().reshape(2, max_people * K)
    places = missing[1 : 1 + missing[0]]
    assert sorted(places) == list(np.flatnonzero(keypoints[:count, :, 2].ravel() == 0))  # each missing joint once
    assert (searches[:, places] == [[UNSEARCHED], [0]]).all()
    return keypoints, scores, count, centres


def mean_tags(people, tag):
    """centres (P, T) of people (P, K, 3) of integer x, y and value on tag (T, K, H, W), in joint order."""
    found = [[tag[:, k, int(y), int(x)] for k, (x, y, value) in enumerate(person) if value > 0] for person in people]
    return np.stack([mean(np.stack(tags)) for tags in found]) if found else np.zeros((0, len(tag)), np.float32)


def scene(rng, K, T, most, spread):
    """Random candidates on a small map: tags on a coarse grid, so that distances and costs tie."""
    heat = (rng.integers(1, 9, (K, 4, 5)) / 8).astype(np.float32)
    tag = (rng.integers(0, spread * 4, (T, K, 4, 5)) / 4).astype(np.float32)
    candidates = []
    for k in range(K):
        cells = rng.permutation(20)[: rng.integers(0, most + 1)]
        cells = sorted(cells, key=lambda cell: (-heat[k].flat[cell], cell))
        candidates.append(np.array([divmod(int(cell), 5) for cell in cells], np.int64).reshape(-1, 2))
    return candidates, heat, tag


@examples(15)
@given(
    seed=st.integers(0, 2**20),
    K=st.sampled_from([3, 10]),
    T=st.integers(1, 2),
    max_people=st.integers(1, 12),  # also more people than lanes
    spread=st.integers(1, 4),
)
def test_equals_the_reference(seed, K, T, max_people, spread):
    rng = np.random.default_rng(seed)
    candidates, heat, tag = scene(rng, K, T, max_people, spread)
    options = DecodeOptions(max_people=max_people, joint_order=tuple(int(k) for k in rng.permutation(K)))
    expected = reference(candidates, heat, tag, options)
    keypoints, scores, count, centres = grouped(candidates, heat, tag, options)
    assert count == len(expected)
    np.testing.assert_array_equal(keypoints[:count], expected)
    np.testing.assert_array_equal(scores[:count], person_scores(expected))
    np.testing.assert_array_equal(centres[:count, :T], mean_tags(expected, tag))
    assert not keypoints[count:].any() and not scores[count:].any()


def test_seventeen_joints_of_one_person_are_averaged_in_the_order_of_numpy():
    rng = np.random.default_rng(8)
    heat, tag = (
        rng.uniform(0.2, 1, (17, 1, 1)).astype(np.float32),
        rng.normal(0, 0.05, (1, 17, 1, 1)).astype(np.float32),
    )
    candidates = [np.zeros((1, 2), np.int64)] * 17
    keypoints, scores, count, _ = grouped(candidates, heat, tag, DecodeOptions(max_people=2))
    assert count == 1
    np.testing.assert_array_equal(keypoints[0, :, 2], heat[:, 0, 0])
    assert scores[0] == heat[:, 0, 0].mean()


def test_weak_people_are_dropped_and_the_rest_move_up():
    heat = np.array([[[0.9, 0.2, 0.8]], [[0, 0, 0]]], np.float32)  # the second joint is nowhere
    tag = np.array([[[[0.0, 5.0, 10.0]]] * 2], np.float32).reshape(1, 2, 1, 3)
    strong_first, strong_last = np.array([[0, 0], [0, 2], [0, 1]]), np.array([[0, 1], [0, 2], [0, 0]])
    options = DecodeOptions(max_people=3, min_score=0.42, joint_order=(0, 1))
    for cells in (strong_first, strong_last):
        candidates = [cells, np.zeros((0, 2), np.int64)]
        keypoints, scores, count, centres = grouped(candidates, heat, tag, options)
        assert count == 1 and scores[0] == np.float32(0.45) and centres[0, 0] == 0
        assert keypoints[0, 0, 2] == np.float32(0.9) and not keypoints[1:].any()


def test_equal_tags_open_two_people():
    heat, tag = np.full((2, 1, 2), 0.5, np.float32), np.zeros((1, 2, 1, 2), np.float32)
    candidates = [np.array([[0, 0], [0, 1]])] * 2
    _, _, count, _ = grouped(candidates, heat, tag, DecodeOptions(max_people=4, joint_order=(0, 1)))
    assert count == 2


def test_shared_memory_of_128_people_fits_every_device():
    assert shared_bytes(128, 17) <= 48 * 1024
