"""Top-k and candidates against tests/reference, in the simulator, with more keys than threads in any order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernels.cuda.select import select_kernel
from tests.kernels.cuda.simulator import examples, flat, on_device, orders_of, sizes_of
from tests.reference.decode import adjust, top_k, upsample2

pytestmark = [pytest.mark.sim]
THREADS = 4


def keys_of(values, indices):
    """As `peaks` writes them: (1, M)."""
    bits = np.asarray(values, np.float32).view(np.int32).astype(np.int64)
    return ((bits << 32) | (0xFFFFFFFF - np.asarray(indices, np.int64)))[None]


def select(heat, tags, keys, max_people, *, project=True, adjusted=True):
    """found (FIELDS, max_people), how many, and the count that is left."""
    counts, found = on_device([keys.shape[1]], np.int32), on_device(np.zeros(5 * max_people, np.float32))
    totals = on_device([[-1]], np.int32)
    select_kernel(max_people, False, project, adjusted, THREADS)[(1, 1), THREADS](
        flat(heat),
        flat(tags),
        sizes_of(1, *heat.shape),
        orders_of(1),
        on_device(keys),
        counts,
        found,
        totals,
    )
    return found.copy_to_host().reshape(5, max_people), totals.copy_to_host()[0, 0], counts.copy_to_host()[0]


@examples(15)
@given(data=st.data(), max_people=st.integers(1, THREADS), count=st.integers(0, 15), project=st.booleans())
def test_equals_the_reference(data, max_people, count, project):
    rng = np.random.default_rng(data.draw(st.integers(0, 9)))
    heat = rng.uniform(0, 1, (4, 6)).astype(np.float32)
    tags = rng.normal(0, 1, (2, 3)).astype(np.float32)
    fine = upsample2(heat) if project else heat
    indices = rng.permutation(fine.size)[:count]
    values = rng.choice(np.array([0.25, 0.5, 0.75], np.float32), count)  # ties, decided by the index
    marked = np.zeros(fine.shape, np.float32)
    marked.flat[indices] = values

    cells = top_k(marked, marked > 0, max_people)
    tag_map = upsample2(upsample2(tags)) if project else upsample2(tags)
    people = np.array([[[x, y, marked[y, x]]] for y, x in cells], np.float32).reshape(-1, 1, 3)
    people = adjust(people, fine[None])
    people[..., :2] *= 1 if project else 2

    found, total, left = select(heat, tags, keys_of(values, indices), max_people, project=project)
    assert (total, left) == (len(cells), 0)
    np.testing.assert_array_equal(found[:3, :total].T, people[:, 0])
    np.testing.assert_array_equal(found[3, :total], tag_map[cells[:, 0], cells[:, 1]])
    np.testing.assert_array_equal(found[4, :total], 0)


def test_the_order_of_the_keys_does_not_matter():
    rng = np.random.default_rng(6)
    keys = keys_of(rng.uniform(0.1, 1, 20), rng.permutation(96)[:20])
    heat, tags = rng.uniform(0, 1, (4, 6)).astype(np.float32), np.zeros((2, 3), np.float32)
    first, _, _ = select(heat, tags, keys, 3)
    second, _, _ = select(heat, tags, keys[..., ::-1], 3)
    np.testing.assert_array_equal(first, second)


def test_without_adjust_positions_are_cells():
    found, _, _ = select(
        np.eye(4, dtype=np.float32), np.zeros((2, 2), np.float32), keys_of([0.5], [6]), 2, project=False, adjusted=False
    )
    np.testing.assert_array_equal(found[:3, 0], [4, 2, 0.5])
