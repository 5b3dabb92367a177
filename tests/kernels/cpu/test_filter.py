import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.joints import COCO, sigmas_for
from kernels.cpu.filter import drop_duplicates, oks
from tests.reference import decode as reference

SIGMAS = np.array(COCO.sigmas)


def a_person(*, x=0.0, y=0.0, size=100.0, value=0.5):
    """17 joints spread over a square box."""
    across = np.linspace(0, size, 17, dtype=np.float32)
    return np.stack([x + across, y + across[::-1], np.full(17, value, np.float32)], axis=1).astype(np.float32)


def without(person, *joints):
    person = person.copy()
    person[list(joints)] = 0
    return person


def test_a_person_explains_itself_fully():
    assert oks(a_person(), a_person(), SIGMAS) == 1


def test_a_far_person_explains_nothing():
    assert oks(a_person(), a_person(x=500), SIGMAS) < 1e-6


def test_oks_follows_the_formula():
    # One joint, one sigma times twice the root of the area away: exp(-1 / 2).
    reference_person, person = a_person(), without(a_person(), *range(1, 17))
    person[0, 0] += 2 * SIGMAS[0] * 100
    assert oks(person, reference_person, SIGMAS) == pytest.approx(np.exp(-0.5), abs=1e-6)


def test_a_joint_that_the_reference_lacks_counts_as_unexplained():
    assert oks(a_person(), without(a_person(), 5, 6, 7, 8), SIGMAS) == pytest.approx(13 / 17)
    assert oks(without(a_person(), 5, 6, 7, 8), a_person(), SIGMAS) == 1


def test_with_a_single_joint_only_the_same_place_counts():
    alone = without(a_person(), *range(1, 17))
    moved = alone.copy()
    moved[0, 0] += 0.25
    assert oks(alone, alone, SIGMAS) == 1
    assert oks(moved, alone, SIGMAS) == 0
    assert oks(np.zeros((17, 3), np.float32), alone, SIGMAS) == 0


def survivors(people, scores, limit=0.7):
    people, scores = np.stack(people), np.array(scores, np.float32)
    people[:, 0, 2] = np.arange(1, len(people) + 1)  # names
    kept = drop_duplicates(people, scores, SIGMAS, limit)
    return (people[:kept, 0, 2] - 1).astype(int).tolist()


def test_of_duplicates_the_stronger_stays_and_the_order_too():
    far = a_person(x=900)
    assert survivors([a_person(), far, a_person(x=1)], [0.4, 0.1, 0.5]) == [1, 2]


def test_of_equal_duplicates_the_earlier_stays():
    assert survivors([a_person(), a_person(x=1), a_person(x=2)], [0.5, 0.5, 0.5]) == [0]


def test_a_dropped_person_drops_nobody():
    # 0 ~ 1 and 1 ~ 2, but 0 is not like 2: 1 falls to 0, so 2 stays.
    step = 8.0
    people = [a_person(), a_person(x=step), a_person(x=2 * step)]
    assert oks(people[1], people[0], SIGMAS) > 0.7 > oks(people[2], people[0], SIGMAS)
    assert survivors(people, [0.9, 0.8, 0.7]) == [0, 2]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 9999), st.sampled_from([3, 14, 17]))
def test_oks_is_that_of_the_reference(seed, joints):
    rng = np.random.default_rng(seed)
    person = rng.normal(0, 20, (joints, 3)).astype(np.float32)
    other = (person + rng.normal(0, 4, (joints, 3))).astype(np.float32)
    for p in (person, other):
        p[p[:, 2] < 0] = 0
    want = reference.oks(person, other)
    assert oks(person, other, np.array(sigmas_for(joints))) == pytest.approx(want, rel=1e-9, abs=1e-12)
