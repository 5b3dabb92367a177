"""The output filter against tests/reference, in the simulator."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.joints import sigmas_for
from kernels.cuda.filter import filter_kernel
from kernels.cuda.packed import packed_size, unpack_people
from kernels.options import DecodeOptions
from tests.kernels.cuda.simulator import examples, flat, on_device
from tests.reference.decode import filter_people as reference

pytestmark = [pytest.mark.sim]
MAX_PEOPLE, THREADS = 5, 16


def filtered(people, scores, options):
    P, K = people.shape[:2]
    draft = np.zeros(packed_size(1, MAX_PEOPLE, K), np.float32)
    keypoints, out_scores, count = unpack_people(draft, (1, MAX_PEOPLE, K))
    keypoints[0, :P], out_scores[0, :P], count[0] = people, scores, P
    thresholds = (np.float32(options.min_joint), np.float32(options.duplicate_oks or 2))
    packed = on_device(np.full_like(draft, 7))
    sharpness = on_device([1 / (8 * sigma**2) for sigma in sigmas_for(K)], np.float32)
    filter_kernel(MAX_PEOPLE, K, THREADS)[1, THREADS](
        flat(draft),
        sharpness,
        thresholds,
        packed,
    )
    (keypoints,), (out_scores,), (count,) = unpack_people(packed.copy_to_host(), (1, MAX_PEOPLE, K))
    assert not keypoints[count:].any() and not out_scores[count:].any()
    return keypoints[:count], out_scores[:count]


def twins(rng, P, K=17):
    """People of whom some stand almost where another stands; some joints are missing."""
    places = rng.uniform(0, 200, (2, K, 2))
    people = np.zeros((P, K, 3), np.float32)
    people[..., :2] = places[rng.integers(2, size=P)] + rng.normal(0, 3, (P, K, 2))
    people[..., 2] = rng.uniform(0.05, 1, (P, K))
    people[rng.random((P, K)) < 0.3] = 0
    return people, (rng.integers(1, 4, P) / 4).astype(np.float32)


@examples(10)
@given(
    seed=st.integers(0, 2**20),
    P=st.integers(0, MAX_PEOPLE),
    duplicate_oks=st.sampled_from([None, 0.5, 0.8]),
    min_joint=st.sampled_from([0.0, 0.3]),
)
def test_equals_the_reference(seed, P, duplicate_oks, min_joint):
    people, scores = twins(np.random.default_rng(seed), P)
    options = DecodeOptions(duplicate_oks=duplicate_oks, min_joint=min_joint)
    for found, wanted in zip(filtered(people, scores, options), reference(people, scores, options), strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_of_equal_people_the_first_stays():
    person = twins(np.random.default_rng(9), 1)[0]
    people, scores = np.repeat(person, 3, axis=0), np.array([0.5, 0.75, 0.75], np.float32)
    kept, kept_scores = filtered(people, scores, DecodeOptions(duplicate_oks=0.7))
    assert len(kept) == 1 and kept_scores[0] == 0.75


def test_people_without_joints_are_no_duplicates():
    people, scores = np.zeros((2, 17, 3), np.float32), np.array([0.5, 0.5], np.float32)
    people[:, 4] = 50, 60, 0.5  # one joint, no area: the same place is a duplicate, another is not
    people[1, 4, 0] = 51
    assert len(filtered(people, scores, DecodeOptions(duplicate_oks=0.1))[0]) == 2
    people[1, 4, 0] = 50
    assert len(filtered(people, scores, DecodeOptions(duplicate_oks=0.1))[0]) == 1
