"""Tracker: assigns ids that follow people through crossings, gaps and dropped frames. It uses only poses.

Each track predicts the person's position at constant velocity, in seconds, since frames may be dropped and come at
uneven intervals. Poses and predictions are compared by OKS and matched jointly, so that people who cross keep ids.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from core.joints import sigmas_for
from pipeline.people.sizes import body_sizes, masked_medians
from pipeline.types import People

Floats = NDArray[np.float64]

# Tuned for IDF1 minus id switches, with all frames, half and a fifth of them, on six other drawn clips (`random_cast`,
# seeds 900001 to 900006) and, at a third of their weight, the bundled one. On the six: IDF1 83.0 / 86.9 / 85.9.
MIN_OKS = 0.2  # of a match between a pose and a prediction
LOST_S = 0.8  # a person out of sight keeps the id for this long
UNCONFIRMED_S = 0.3  # the same for a person seen only once, who is often a false detection
CONFIRMED_SCORE = 0.45  # a person with this score gets an id at once; others when they are seen again
OKS_SCALE = 0.5  # of the squared COCO sigmas: a smaller tolerance than COCO's separates people who are near
GROWTH = 4.0  # of the tolerance, per second since the person was seen
JOINT_GROWTH = 3.0  # the same, per second since that joint was seen
FEW_JOINTS = 4  # with fewer common joints, the OKS is reduced
LONE_JOINT = 0.3  # weight by which a joint found only in the pose, not in the track, reduces the OKS
SIZE_RATIO = 2.0  # of log sizes: a ratio of e^2 reduces the OKS to 1 / e of it
SENIORITY = (0.5, 0.4)  # OKS added to a track's preference, reached after this many seconds
STALENESS = 0.2  # OKS subtracted from the preference, per second since the person was seen
VELOCITY_S = 0.5  # time constant of the velocity's average
GOOD_OKS = 0.5  # a match with less OKS changes the velocity less
MAX_SPEED = 3.0  # sizes per second
SIZE_S = 0.5  # time constant of the size's average
LIKELY = 0.3  # a joint whose term of the OKS is higher is accepted at its new position
SHORTEST_S = 1e-3  # between two frames, since some streams repeat timestamps


@dataclass
class _Tracks:
    """T tracked people, one per row. Poses are those of the last update, not predictions."""

    ids: NDArray[np.int64]  # (T,): 0 until the track is confirmed
    sightings: NDArray[np.int64]  # (T,)
    xy: Floats  # (T, K, 2)
    known: NDArray[np.bool_]  # (T, K)
    joint_at: Floats  # (T, K): when each joint was last accepted, seconds
    velocity: Floats  # (T, 2) pixels a second
    size: Floats  # (T,) pixels
    seen_at: Floats  # (T,)
    first_at: Floats  # (T,)

    @classmethod
    def start(cls, xy: Floats, known: NDArray[np.bool_], size: Floats, time_s: float) -> _Tracks:
        at = np.full(known.shape, time_s)
        count = len(xy)
        zeros, ones = np.zeros(count, np.int64), np.ones(count, np.int64)
        return cls(zeros, ones, xy, known, at, np.zeros((count, 2)), size, at[:, 0].copy(), at[:, 0].copy())

    def pick(self, which: NDArray[np.bool_]) -> _Tracks:
        return _Tracks(*(getattr(self, one.name)[which] for one in fields(self)))

    def joined(self, other: _Tracks) -> _Tracks:
        return _Tracks(*(np.concatenate([getattr(self, one.name), getattr(other, one.name)]) for one in fields(self)))


class Tracker:
    """Tracks the people of one source. Ids start at 1 and are never reused.

    lost_s: seconds that a person may be out of sight and keep the id.
    """

    def __init__(self, *, lost_s: float = LOST_S) -> None:
        if not lost_s > 0:
            raise ValueError(f"lost_s is {lost_s}; expected a positive number of seconds")
        self._lost_s = lost_s
        self._last_id = 0
        self._time_s = -np.inf
        self._tracks: _Tracks | None = None
        _matched(np.ones((1, 1)))  # compile or load the solver now, not at the first frame

    def reset(self) -> None:
        """End all tracks, as after a cut in a film. Their ids are not reused."""
        self._tracks = None

    def update(self, people: People, time_s: float) -> People:
        """The same people in the same order, with ids; 0 for a person with a low score who is seen for the first time.

        time_s: of the frame, from the source's start. If it decreases (the source loops or restarts), all tracks end.
        The ids do not depend on the order of people.
        """
        joints = people.keypoints.shape[1]
        if time_s < self._time_s or (self._tracks is not None and self._tracks.known.shape[1] != joints):
            self.reset()
        self._time_s = time_s
        # sorted by score, then from left to right, so that the result does not depend on the given order
        order = np.lexsort((*people.keypoints.sum(axis=1).T[::-1], -people.scores))
        xy, found = people.keypoints[order].astype(np.float64), people.keypoint_scores[order] > 0
        size = body_sizes(people.boxes()[order])
        confirmed = people.scores[order] >= CONFIRMED_SCORE
        ids = np.zeros(len(order), np.int64)
        new = np.ones(len(order), np.bool_)
        tracks = self._active(time_s)
        if tracks is not None and len(order):
            person, track = _update_tracks(tracks, xy, found, size, time_s=time_s)
            self._assign_ids(tracks.ids, track[(tracks.sightings[track] > 1) | confirmed[person]])
            ids[person] = tracks.ids[track]
            new[person] = False
        if new.any():
            started = _Tracks.start(xy[new], found[new], size[new], time_s)
            self._assign_ids(started.ids, np.flatnonzero(confirmed[new]))
            ids[new] = started.ids
            tracks = started if tracks is None else tracks.joined(started)
        self._tracks = tracks
        return replace(people, ids=ids[np.argsort(order)])

    def _active(self, time_s: float) -> _Tracks | None:
        """The tracks that have been seen recently enough."""
        if self._tracks is None:
            return None
        kept_s = np.where(self._tracks.sightings > 1, self._lost_s, min(UNCONFIRMED_S, self._lost_s))
        kept = time_s - self._tracks.seen_at <= kept_s
        return self._tracks if kept.all() else self._tracks.pick(kept)

    def _assign_ids(self, ids: NDArray[np.int64], rows: NDArray[np.intp]) -> None:
        """Assign an id to those of the rows that have none, in place."""
        rows = rows[ids[rows] == 0]
        ids[rows] = self._last_id + 1 + np.arange(len(rows))
        self._last_id += len(rows)


def _update_tracks(
    tracks: _Tracks, xy: Floats, found: NDArray[np.bool_], size: Floats, *, time_s: float
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Match people to tracks and update the matched tracks, in place. Returns the matched people and their tracks."""
    unseen_s = np.maximum(time_s - tracks.seen_at, SHORTEST_S)  # (T,)
    predicted = tracks.xy + (tracks.velocity * unseen_s[:, None])[:, None]  # (T, K, 2)
    similarity = _similarity(tracks, predicted, xy, size, time_s=time_s)  # (P, T, K)
    shared = found[:, None] & tracks.known  # (P, T, K)
    count = shared.sum(axis=2)
    lone = found.sum(axis=1)[:, None] - count  # (P, T)
    oks = np.where(shared, similarity, 0).sum(axis=2) / (np.maximum(count, FEW_JOINTS) + LONE_JOINT * lone)
    oks *= np.exp(-((np.log(size[:, None] / tracks.size) / SIZE_RATIO) ** 2))
    known_s = np.minimum((tracks.seen_at - tracks.first_at) / SENIORITY[1], 1)
    preference = oks + SENIORITY[0] * known_s - STALENESS * unseen_s
    person, track = _matched(np.where(oks >= MIN_OKS, np.maximum(preference, 0), -1))

    pair = person, track
    offset = masked_medians(xy[person] - predicted[track], shared[pair])  # (M, 2)
    unseen = unseen_s[track][:, None]
    gain = np.where(tracks.sightings[track] == 1, 1.0, 1 - np.exp(-unseen_s[track] / VELOCITY_S))
    velocity = tracks.velocity[track] + (gain * np.minimum(oks[pair] / GOOD_OKS, 1))[:, None] * offset / unseen
    speed = np.sqrt((velocity**2).sum(axis=1))
    max_speed = MAX_SPEED * tracks.size[track]
    tracks.velocity[track] = velocity * np.minimum(1, max_speed / np.maximum(speed, 1e-9))[:, None]
    accepted = found[person] & (~tracks.known[track] | (similarity[pair] > LIKELY))  # (M, K)
    tracks.xy[track] = np.where(accepted[..., None], xy[person], predicted[track] + offset[:, None])
    tracks.joint_at[track] = np.where(accepted, time_s, tracks.joint_at[track])
    tracks.known[track] |= accepted
    tracks.size[track] += (1 - np.exp(-unseen_s[track] / SIZE_S)) * (size[person] - tracks.size[track])
    tracks.seen_at[track] = time_s
    tracks.sightings[track] += 1
    return person, track


def _similarity(tracks: _Tracks, predicted: Floats, xy: Floats, size: Floats, *, time_s: float) -> Floats:
    """(P, T, K): each joint's term of the OKS, 0 to 1; its tolerance grows with the time out of sight."""
    offset = xy[:, None] - predicted  # (P, T, K, 2)
    area = (0.5 * (size[:, None] + tracks.size)) ** 2  # (P, T)
    unseen_s = np.minimum(tracks.seen_at[:, None] - tracks.joint_at, 1.0)  # (T, K): longer than the person
    growth = 1 + GROWTH * (time_s - tracks.seen_at)[:, None] + JOINT_GROWTH * unseen_s
    variance = 8 * OKS_SCALE * (np.array(sigmas_for(xy.shape[1])) * growth) ** 2  # (T, K), as COCO: 2 (2 sigma)^2
    return np.asarray(np.exp(-np.einsum("ptki,ptki->ptk", offset, offset) / (area[..., None] * variance)))


def _matched(preference: Floats) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Matched rows and their columns, such that the sum of preference (R, C) is maximal; below 0 is never matched."""
    from kernels.cpu import match

    # the solver distinguishes 255 * 256 distances; a forbidden pair has the cost of an unmatched row
    most = max(float(preference.max(initial=0)), 1.0)
    distance = 255 * (1 - np.maximum(preference, 0) / most)
    columns = match(distance.astype(np.float32), np.zeros(len(distance), np.float32))
    rows = np.flatnonzero(columns >= 0)
    rows = rows[preference[rows, columns[rows]] >= 0]
    return rows, columns[rows]
