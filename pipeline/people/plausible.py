"""One person read through several: what of a skeleton fits one body stays, the rest goes.

Where people stand close, grouping by tags can join one person's shoulders to another's hips. Every limb that joins two
bodies is then long, and those within one body are not: the person's own short limbs say how large the body is.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from core.joints import find_joint_set
from pipeline.types import People

# How long the body's connections are, in torsos (shoulder to hip): the 75th percentile of 7,783 people of COCO. The
# first two names are the joints, for the left side; the right is the same.
LENGTHS = (
    ("nose", "left_eye", 0.12), ("left_eye", "left_ear", 0.20), ("left_ear", "left_shoulder", 0.48),
    ("nose", "left_shoulder", 0.58), ("head", "neck", 0.45), ("neck", "left_shoulder", 0.40),
    ("left_shoulder", "right_shoulder", 0.69), ("left_shoulder", "left_elbow", 0.63),
    ("left_elbow", "left_wrist", 0.52), ("left_shoulder", "left_hip", 1.00), ("left_hip", "right_hip", 0.47),
    ("left_hip", "left_knee", 0.87), ("left_knee", "left_ankle", 0.87),
)  # fmt: skip
MEASURING = 0.3  # connections at least this long tell a body's size; eyes and ears turn out of sight too easily
QUANTILE = 0.25  # of the sizes that the connections tell: most of a mixed skeleton's are of two bodies
TOLERANCE = 3.5  # times that size; of 11,545 people of COCO 7 have a longer connection, and 12 are taken for nobody
SLACK_PX = 6.0  # a keypoint's own error, of small people
FAR = np.float32(1e9)  # pixels: no limit
LEAST_JOINTS = 5  # fewer than this left of a mixed skeleton is nobody
SQUARINGS = 4  # of the adjacency: paths of up to 16 connections, the longest that 17 joints have


def drop_impossible(people: People) -> People:
    """The people without what cannot belong to them; where too little is left, without the person.

    A joint too far from all it is connected to goes, and so does the weaker part of a skeleton that falls apart. The
    score shrinks with the share of keypoint scores that went. People in whom nothing is wrong stay as they are.
    """
    if not len(people):
        return people
    parts = _parts(people.keypoint_scores.shape[1])
    if parts is None:
        return people
    found = people.keypoint_scores > 0  # (P, K)
    kept = _one_body(people, found, parts)
    changed = (kept != found).any(axis=1)
    if not changed.any():
        return people
    before = people.keypoint_scores.sum(axis=1)
    scores = np.where(kept, people.keypoint_scores, np.float32(0))
    share = np.divide(scores.sum(axis=1), before, out=np.ones_like(before), where=changed & (before > 0))
    rest = People(np.where(kept[..., None], people.keypoints, np.float32(0)), scores, people.scores * share, people.ids)
    return rest.pick(~changed | (kept.sum(axis=1) >= LEAST_JOINTS))


@dataclass(frozen=True, eq=False)
class _Parts:
    """The connections of a joint set: E of them, and B bridges that leap over a joint that was not found."""

    edges: NDArray[np.intp]  # (E, 2)
    lengths: NDArray[np.float32]  # (E,), in torsos
    bridges: NDArray[np.intp]  # (B, 3): from, over, to
    bridge_lengths: NDArray[np.float32]  # (B,)


@cache
def _parts(joints: int) -> _Parts | None:
    """None for a joint set without names."""
    joint_set = find_joint_set(joints)
    if joint_set is None:
        return None
    names, flip = joint_set.joints, joint_set.flip
    edges: dict[tuple[int, int], float] = {}
    for first, second, length in LENGTHS:
        if first in names and second in names:
            edge = names.index(first), names.index(second)
            for a, b in (edge, (flip[edge[0]], flip[edge[1]])):
                edges[min(a, b), max(a, b)] = length
    bridges = []
    for (one, length), (other, more) in combinations(edges.items(), 2):
        for middle in {*one} & {*other}:
            start, end = {*one, *other} - {middle}
            bridges.append((start, middle, end, length + more))
    return _Parts(
        np.array(list(edges)),
        np.array(list(edges.values()), np.float32),
        np.array([bridge[:3] for bridge in bridges]),
        np.array([bridge[3] for bridge in bridges], np.float32),
    )


def _one_body(people: People, found: NDArray[np.bool_], parts: _Parts) -> NDArray[np.bool_]:
    """(P, K): the joints that stay. Two rounds, since what goes in the first had a say in the body's size."""
    length = _distances(people.keypoints, parts.edges)  # (P, E)
    kept = found
    for _ in range(2):
        both = _both(kept, parts.edges)
        limit = TOLERANCE * _sizes(length, both, parts)
        near = both & (length <= limit[:, None] * parts.lengths + SLACK_PX)
        if (near == both).all():
            break
        kept = _strongest_piece(people, kept, near, limit=limit, parts=parts)
    return kept


def _sizes(length: NDArray[np.float32], both: NDArray[np.bool_], parts: _Parts) -> NDArray[np.float32]:
    """(P,): the body's torso as the shorter of its connections tell it; FAR where there is none to tell."""
    tells = both & (parts.lengths >= MEASURING)
    size = np.where(tells, length / parts.lengths, FAR)
    size.sort(axis=1)
    place = QUANTILE * np.maximum(tells.sum(axis=1) - 1, 0)  # (P,), among those that tell
    row, low = np.arange(len(size)), place.astype(np.intp)
    below, above = size[row, low], size[row, np.ceil(place).astype(np.intp)]
    return np.asarray(below + (above - below) * (place - low), np.float32)


def _strongest_piece(
    people: People,
    kept: NDArray[np.bool_],
    near: NDArray[np.bool_],
    *,
    limit: NDArray[np.float32],
    parts: _Parts,
) -> NDArray[np.bool_]:
    """(P, K): of each person with two connected joints that are not `near` (P, E), the piece of most keypoint score.

    limit: (P,) pixels, how far a bridge of one torso may leap.
    """
    broken = np.flatnonzero((_both(kept, parts.edges) & ~near).any(axis=1))
    if not len(broken):
        return kept
    alive = kept[broken]
    over = parts.bridges[:, 1]
    leap = _distances(people.keypoints[broken], parts.bridges[:, ::2]) <= limit[broken, None] * parts.bridge_lengths
    joined = np.zeros((len(broken), kept.shape[1], kept.shape[1]), np.bool_)
    for pairs, holds in ((parts.bridges[:, ::2], leap & ~alive[:, over]), (parts.edges, near[broken])):
        # a bridge may come twice, over two joints
        row, pair = np.nonzero(holds & _both(alive, pairs))
        joined[row, pairs[pair, 0], pairs[pair, 1]] = joined[row, pairs[pair, 1], pairs[pair, 0]] = True
    reach = (joined | np.eye(kept.shape[1], dtype=np.bool_)).astype(np.float32)  # matrices of bool multiply slowly
    for _ in range(SQUARINGS):
        reach = np.minimum(np.matmul(reach, reach), 1)
    weight = np.where(alive, people.keypoint_scores[broken], 0)
    strongest = np.where(alive, np.matmul(reach, weight[..., None])[..., 0], -1).argmax(axis=1)
    kept = kept.copy()
    kept[broken] = alive & (reach[np.arange(len(broken)), strongest] > 0)
    return kept


def _both(kept: NDArray[np.bool_], pairs: NDArray[np.intp]) -> NDArray[np.bool_]:
    """(P, E): whether both joints of each pair (E, 2) are there, of (P, K)."""
    return kept[:, pairs[:, 0]] & kept[:, pairs[:, 1]]


def _distances(xy: NDArray[np.float32], pairs: NDArray[np.intp]) -> NDArray[np.float32]:
    """(P, E) pixels between the joints (E, 2) of each person (P, K, 2)."""
    between = xy[:, pairs[:, 0]] - xy[:, pairs[:, 1]]
    return np.asarray(np.sqrt(np.einsum("pei,pei->pe", between, between)), np.float32)
