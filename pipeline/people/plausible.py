"""Removes the joints of a skeleton that mixes several people.

Where people stand close, grouping by tags can join one person's shoulders to another's hips. Limbs that join two bodies
are long, and limbs within one body are short: the short ones tell the size of the body.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from core.joints import find_joint_set
from pipeline.types import People

# Lengths of connections between joints, in torsos (shoulder to hip): the 75th percentile of 7,783 people of COCO. Names
# are those of the left side; the right side has the same lengths.
LENGTHS = (
    ("nose", "left_eye", 0.12), ("left_eye", "left_ear", 0.20), ("left_ear", "left_shoulder", 0.48),
    ("nose", "left_shoulder", 0.58), ("head", "neck", 0.45), ("neck", "left_shoulder", 0.40),
    ("left_shoulder", "right_shoulder", 0.69), ("left_shoulder", "left_elbow", 0.63),
    ("left_elbow", "left_wrist", 0.52), ("left_shoulder", "left_hip", 1.00), ("left_hip", "right_hip", 0.47),
    ("left_hip", "left_knee", 0.87), ("left_knee", "left_ankle", 0.87),
)  # fmt: skip
MEASURING = 0.3  # shortest connection that measures a body's size; distances of eyes and ears vary with the view
QUANTILE = 0.25  # of the sizes from all connections: in a mixed skeleton, most connections join two bodies
TOLERANCE = 3.5  # times that size; of 11,545 people of COCO, 7 have a longer connection, and 12 are removed
SLACK_PX = 6.0  # the error of keypoints, relevant for small people
FAR = np.float32(1e9)  # pixels: no limit
MIN_JOINTS = 5  # a mixed skeleton with fewer joints left is removed
SQUARINGS = 4  # of the adjacency matrix: paths of up to 16 connections, the longest possible with 17 joints


def drop_impossible(people: People, *, min_score: float = 0.0) -> People:
    """The people without joints that cannot belong to the same body, and without people who have too few joints left.

    A joint that is too far from all its neighbours is removed; so is the weaker part of a skeleton that this splits.
    The score decreases with the share of keypoint scores that were removed. Other people are not changed.
    min_score: of the changed people, those whose score is lower now are removed too.
    """
    if not len(people):
        return people
    parts = _parts(people.keypoint_scores.shape[1])
    if parts is None:
        return people
    found = people.keypoint_scores > 0  # (P, K)
    valid = _one_body(people, found, parts)
    changed = (valid != found).any(axis=1)
    if not changed.any():
        return people
    before = people.keypoint_scores.sum(axis=1)
    scores = np.where(valid, people.keypoint_scores, np.float32(0))
    share = np.divide(scores.sum(axis=1), before, out=np.ones_like(before), where=changed & (before > 0))
    keypoints = np.where(valid[..., None], people.keypoints, np.float32(0))
    changed_people = People(keypoints, scores, people.scores * share, people.ids)
    enough = (valid.sum(axis=1) >= MIN_JOINTS) & (changed_people.scores >= min_score)
    return changed_people.pick(~changed | enough)


@dataclass(frozen=True, eq=False)
class _Parts:
    """The E connections of a joint set, and B bridges: pairs of joints that are both connected to a third joint."""

    edges: NDArray[np.intp]  # (E, 2)
    lengths: NDArray[np.float32]  # (E,), in torsos
    bridges: NDArray[np.intp]  # (B, 3): first, middle, last joint; used if the middle one was not found
    bridge_lengths: NDArray[np.float32]  # (B,)


@cache
def _parts(joints: int) -> _Parts | None:
    """The connections of the joint set with this number of joints; None if it has no names."""
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
    """(P, K): the joints of one body. Two rounds, since joints removed in the first influenced the body's size."""
    length = _distances(people.keypoints, parts.edges)  # (P, E)
    valid = found
    for _ in range(2):
        both = _both(valid, parts.edges)
        limit = TOLERANCE * _sizes(length, both, parts)
        near = both & (length <= limit[:, None] * parts.lengths + SLACK_PX)
        if (near == both).all():
            break
        valid = _strongest_piece(people, valid, near, limit=limit, parts=parts)
    return valid


def _sizes(length: NDArray[np.float32], both: NDArray[np.bool_], parts: _Parts) -> NDArray[np.float32]:
    """(P,): the length of the torso, estimated from the shorter connections; FAR if no connection was found."""
    measures = both & (parts.lengths >= MEASURING)
    size = np.where(measures, length / parts.lengths, FAR)
    size.sort(axis=1)
    position = QUANTILE * np.maximum(measures.sum(axis=1) - 1, 0)  # (P,), of the quantile
    row, low = np.arange(len(size)), position.astype(np.intp)
    below, above = size[row, low], size[row, np.ceil(position).astype(np.intp)]
    return np.asarray(below + (above - below) * (position - low), np.float32)


def _strongest_piece(
    people: People,
    valid: NDArray[np.bool_],
    near: NDArray[np.bool_],
    *,
    limit: NDArray[np.float32],
    parts: _Parts,
) -> NDArray[np.bool_]:
    """(P, K): the valid joints. Of a person whose connected joints are not all `near` (P, E), only the connected piece
    with the highest sum of keypoint scores.

    limit: (P,) pixels, the longest valid connection of one torso.
    """
    broken = np.flatnonzero((_both(valid, parts.edges) & ~near).any(axis=1))
    if not len(broken):
        return valid
    present = valid[broken]
    middle = parts.bridges[:, 1]
    short = _distances(people.keypoints[broken], parts.bridges[:, ::2]) <= limit[broken, None] * parts.bridge_lengths
    joined = np.zeros((len(broken), valid.shape[1], valid.shape[1]), np.bool_)
    for pairs, connected in ((parts.bridges[:, ::2], short & ~present[:, middle]), (parts.edges, near[broken])):
        # a pair may have two bridges, with different middle joints
        row, pair = np.nonzero(connected & _both(present, pairs))
        joined[row, pairs[pair, 0], pairs[pair, 1]] = joined[row, pairs[pair, 1], pairs[pair, 0]] = True
    reach = (joined | np.eye(valid.shape[1], dtype=np.bool_)).astype(np.float32)  # products of bool matrices are slow
    for _ in range(SQUARINGS):
        reach = np.minimum(np.matmul(reach, reach), 1)
    weight = np.where(present, people.keypoint_scores[broken], 0)
    strongest = np.where(present, np.matmul(reach, weight[..., None])[..., 0], -1).argmax(axis=1)
    valid = valid.copy()
    valid[broken] = present & (reach[np.arange(len(broken)), strongest] > 0)
    return valid


def _both(present: NDArray[np.bool_], pairs: NDArray[np.intp]) -> NDArray[np.bool_]:
    """(P, E): whether both joints of each pair (E, 2) are present (P, K)."""
    return present[:, pairs[:, 0]] & present[:, pairs[:, 1]]


def _distances(xy: NDArray[np.float32], pairs: NDArray[np.intp]) -> NDArray[np.float32]:
    """(P, E) pixels between the joints (E, 2) of each person (P, K, 2)."""
    between = xy[:, pairs[:, 0]] - xy[:, pairs[:, 1]]
    return np.asarray(np.sqrt(np.einsum("pei,pei->pe", between, between)), np.float32)
