"""The output filter, off by default: weak people, duplicates and weak joints. The order of people stays."""

from __future__ import annotations

import numpy as np

from kernels.cpu._jit import inner
from kernels.cpu.maps import Floats


@inner
def _move(people: Floats, scores: Floats, source: int, target: int) -> None:
    scores[target] = scores[source]
    for k in range(people.shape[1]):
        for i in range(3):
            people[target, k, i] = people[source, k, i]


@inner
def drop_weak(people: Floats, scores: Floats, min_score: np.float32) -> int:
    """Moves the people whose score is at least min_score to the front; returns their number."""
    kept = 0
    for p in range(len(scores)):
        if scores[p] >= min_score:
            _move(people, scores, p, kept)
            kept += 1
    return kept


@inner
def drop_duplicates(people: Floats, scores: Floats, sigmas: Floats, limit: float) -> int:
    """Strongest first (ties: the earlier), keeps a person unless its `oks` with a kept one exceeds limit.

    Moves the kept to the front, in their order; returns how many they are.
    """
    P = len(scores)
    kept, seen = np.zeros(P, np.bool_), np.zeros(P, np.bool_)
    for _ in range(P):
        p = -1
        for q in range(P):
            if not seen[q] and (p < 0 or scores[q] > scores[p]):
                p = q
        seen[p] = True
        unlike = True
        for q in range(P):
            if kept[q] and oks(people[p], people[q], sigmas) > limit:
                unlike = False
                break
        kept[p] = unlike
    count = 0
    for p in range(P):
        if kept[p]:
            _move(people, scores, p, count)
            count += 1
    return count


@inner
def oks(person: Floats, reference: Floats, sigmas: Floats) -> float:
    """The OKS of person (K, 3) against the stronger reference (K, 3), 0 to 1, in float64.

    The mean, over the person's found joints, of exp(-d^2 / (8 s^2 area)), or 0 where the reference lacks the joint;
    area is that of the box around the reference's found joints. With no area only equal positions count.
    """
    left, right, top, bottom = np.inf, -np.inf, np.inf, -np.inf
    for k in range(len(reference)):
        if reference[k, 2] > 0:
            left, right = min(left, np.float64(reference[k, 0])), max(right, np.float64(reference[k, 0]))
            top, bottom = min(top, np.float64(reference[k, 1])), max(bottom, np.float64(reference[k, 1]))
    area = (right - left) * (bottom - top)
    total, found = 0.0, 0
    for k in range(len(person)):
        if not person[k, 2] > 0:
            continue
        found += 1
        if not reference[k, 2] > 0:
            continue
        dx = np.float64(person[k, 0]) - np.float64(reference[k, 0])
        dy = np.float64(person[k, 1]) - np.float64(reference[k, 1])
        square = dx * dx + dy * dy
        if area > 0:
            total += np.exp(-square / (8 * sigmas[k] * sigmas[k] * area))
        elif square == 0:
            total += 1.0
    return total / found if found > 0 else 0.0


@inner
def hide_joints(people: Floats, min_joint: np.float32) -> None:
    """Zeroes the joints whose value is below min_joint."""
    for p in range(people.shape[0]):
        for k in range(people.shape[1]):
            if people[p, k, 2] < min_joint:
                people[p, k].fill(0)
