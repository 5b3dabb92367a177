"""Who is who from frame to frame: ids that follow people through crossings, gaps and dropped frames. Poses only.

Every track predicts where its person is now, at constant velocity, in seconds: frames may be dropped and come
unevenly. Poses and predictions are compared by OKS and matched as a whole, so that two who cross keep their ids.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from core.joints import sigmas_for
from pipeline.people.sizes import body_sizes, masked_medians
from pipeline.types import People

Floats = NDArray[np.float64]

# Chosen by IDF1 less id switches, with all frames, half of them and a fifth, on six other drawn clips (`random_cast` of
# seeds 900001 to 900006) and, at a third of their weight, the bundled one. On the six: IDF1 83.0 / 86.9 / 85.9.
LEAST_OKS = 0.2  # between a pose and a prediction, for the same person
LOST_S = 0.8  # for how long somebody may be out of sight and keep the id
UNSURE_S = 0.3  # the same for somebody seen only once: often a ghost
SURE_SCORE = 0.45  # somebody this strong gets an id at once, others when seen again
OKS_SCALE = 0.5  # of the squared COCO sigmas: two near people are told apart by less than COCO's tolerance
GROWTH = 4.0  # of the tolerance, per second since the person was seen
JOINT_GROWTH = 3.0  # the same per second since that joint was seen
FEW_JOINTS = 4  # found in common by fewer, the OKS counts less
LONE_JOINT = 0.3  # what a found joint that the track does not know counts against the OKS
SIZE_RATIO = 2.0  # one against the other's size; at e^2 of it the OKS is down to 1 / e
SENIORITY = (0.5, 0.4)  # preferred to a newcomer by this much OKS after so many seconds
STALENESS = 0.2  # OKS per second since seen, in the choice between tracks
VELOCITY_S = 0.5  # over which velocity is averaged
GOOD_OKS = 0.5  # velocity learns less from a worse match
FASTEST = 3.0  # sizes a second
SIZE_S = 0.5  # over which size is averaged
LIKELY = 0.3  # a joint's term of the OKS above which its new place is believed at once
SHORTEST_S = 1e-3  # between two frames: some streams repeat timestamps


@dataclass
class _Tracks:
    """T people being followed, a row each. Poses are as last believed, not yet moved to now."""

    ids: NDArray[np.int64]  # (T,): 0 until the track is sure
    sightings: NDArray[np.int64]  # (T,)
    xy: Floats  # (T, K, 2)
    known: NDArray[np.bool_]  # (T, K)
    joint_at: Floats  # (T, K): when each joint was last believed, seconds
    velocity: Floats  # (T, 2) pixels a second
    size: Floats  # (T,) pixels
    seen_at: Floats  # (T,)
    first_at: Floats  # (T,)

    @classmethod
    def begun(cls, xy: Floats, known: NDArray[np.bool_], size: Floats, time_s: float) -> _Tracks:
        at = np.full(known.shape, time_s)
        count = len(xy)
        zeros, ones = np.zeros(count, np.int64), np.ones(count, np.int64)
        return cls(zeros, ones, xy, known, at, np.zeros((count, 2)), size, at[:, 0].copy(), at[:, 0].copy())

    def pick(self, which: NDArray[np.bool_]) -> _Tracks:
        return _Tracks(*(getattr(self, one.name)[which] for one in fields(self)))

    def joined(self, other: _Tracks) -> _Tracks:
        return _Tracks(*(np.concatenate([getattr(self, one.name), getattr(other, one.name)]) for one in fields(self)))


class Tracker:
    """Follows the people of one source. Ids start at 1, and a number is never given to a second person.

    lost_s: for how long somebody may be out of sight and keep the id, seconds.
    """

    def __init__(self, *, lost_s: float = LOST_S) -> None:
        if not lost_s > 0:
            raise ValueError(f"lost_s is {lost_s}; expected a positive number of seconds")
        self._lost_s = lost_s
        self._last_id = 0
        self._time_s = -np.inf
        self._tracks: _Tracks | None = None
        _matched(np.ones((1, 1)))  # compiled or loaded now, not at the first frame

    def forget(self) -> None:
        """All are strangers from here on, as after a cut in a film. Their ids are not given again."""
        self._tracks = None

    def update(self, people: People, time_s: float) -> People:
        """The same people in the same order, with ids; 0 for somebody weak who is seen for the first time.

        time_s: of the frame, from the source's start. Where it runs back (the source loops, or starts again) all are
        strangers. Who gets which id does not depend on the order of people.
        """
        joints = people.keypoints.shape[1]
        if time_s < self._time_s or (self._tracks is not None and self._tracks.known.shape[1] != joints):
            self.forget()
        self._time_s = time_s
        # the strongest first, then from left to right: nothing below depends on the given order
        order = np.lexsort((*people.keypoints.sum(axis=1).T[::-1], -people.scores))
        xy, found = people.keypoints[order].astype(np.float64), people.keypoint_scores[order] > 0
        size = body_sizes(people.boxes()[order])
        sure = people.scores[order] >= SURE_SCORE
        ids = np.zeros(len(order), np.int64)
        new = np.ones(len(order), np.bool_)
        tracks = self._alive(time_s)
        if tracks is not None and len(order):
            person, track = _follow(tracks, xy, found, size, time_s=time_s)
            self._name(tracks.ids, track[(tracks.sightings[track] > 1) | sure[person]])
            ids[person] = tracks.ids[track]
            new[person] = False
        born = _Tracks.begun(xy[new], found[new], size[new], time_s)
        self._name(born.ids, np.flatnonzero(sure[new]))
        ids[new] = born.ids
        self._tracks = born if tracks is None else tracks.joined(born)
        return replace(people, ids=ids[np.argsort(order)])

    def _alive(self, time_s: float) -> _Tracks | None:
        if self._tracks is None:
            return None
        lasts_s = np.where(self._tracks.sightings > 1, self._lost_s, min(UNSURE_S, self._lost_s))
        return self._tracks.pick(time_s - self._tracks.seen_at <= lasts_s)

    def _name(self, ids: NDArray[np.int64], rows: NDArray[np.intp]) -> None:
        """Give the rows that have none an id, in place."""
        rows = rows[ids[rows] == 0]
        ids[rows] = self._last_id + 1 + np.arange(len(rows))
        self._last_id += len(rows)


def _follow(
    tracks: _Tracks, xy: Floats, found: NDArray[np.bool_], size: Floats, *, time_s: float
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Match people to tracks and move the matched tracks on, in place. Returns the pairs: people, their tracks."""
    unseen_s = np.maximum(time_s - tracks.seen_at, SHORTEST_S)  # (T,)
    predicted = tracks.xy + (tracks.velocity * unseen_s[:, None])[:, None]  # (T, K, 2)
    likeness = _likeness(tracks, predicted, xy, size, time_s=time_s)  # (P, T, K)
    shared = found[:, None] & tracks.known  # (P, T, K)
    count = shared.sum(axis=2)
    lone = found.sum(axis=1)[:, None] - count  # (P, T)
    oks = np.where(shared, likeness, 0).sum(axis=2) / (np.maximum(count, FEW_JOINTS) + LONE_JOINT * lone)
    oks *= np.exp(-((np.log(size[:, None] / tracks.size) / SIZE_RATIO) ** 2))
    known_s = np.minimum((tracks.seen_at - tracks.first_at) / SENIORITY[1], 1)
    preference = oks + SENIORITY[0] * known_s - STALENESS * unseen_s
    person, track = _matched(np.where(oks >= LEAST_OKS, np.maximum(preference, 0), -1))

    pair = person, track
    offset = masked_medians(xy[person] - predicted[track], shared[pair])  # (M, 2)
    unseen = unseen_s[track][:, None]
    gain = np.where(tracks.sightings[track] == 1, 1.0, 1 - np.exp(-unseen_s[track] / VELOCITY_S))
    velocity = tracks.velocity[track] + (gain * np.minimum(oks[pair] / GOOD_OKS, 1))[:, None] * offset / unseen
    speed = np.sqrt((velocity**2).sum(axis=1))
    fastest = FASTEST * tracks.size[track]
    tracks.velocity[track] = velocity * np.minimum(1, fastest / np.maximum(speed, 1e-9))[:, None]
    believed = found[person] & (~tracks.known[track] | (likeness[pair] > LIKELY))  # (M, K)
    tracks.xy[track] = np.where(believed[..., None], xy[person], predicted[track] + offset[:, None])
    tracks.joint_at[track] = np.where(believed, time_s, tracks.joint_at[track])
    tracks.known[track] |= believed
    tracks.size[track] += (1 - np.exp(-unseen_s[track] / SIZE_S)) * (size[person] - tracks.size[track])
    tracks.seen_at[track] = time_s
    tracks.sightings[track] += 1
    return person, track


def _likeness(tracks: _Tracks, predicted: Floats, xy: Floats, size: Floats, *, time_s: float) -> Floats:
    """(P, T, K): each joint's term of the OKS, 0 to 1, by a tolerance that grows while it is out of sight."""
    apart = xy[:, None] - predicted  # (P, T, K, 2)
    area = (0.5 * (size[:, None] + tracks.size)) ** 2  # (P, T)
    unseen_s = np.minimum(tracks.seen_at[:, None] - tracks.joint_at, 1.0)  # (T, K): longer than the person
    growth = 1 + GROWTH * (time_s - tracks.seen_at)[:, None] + JOINT_GROWTH * unseen_s
    variance = 8 * OKS_SCALE * (np.array(sigmas_for(xy.shape[1])) * growth) ** 2  # (T, K), as COCO: 2 (2 sigma)^2
    return np.asarray(np.exp(-np.einsum("ptki,ptki->ptk", apart, apart) / (area[..., None] * variance)))


def _matched(preference: Floats) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows and their columns such that the sum of preference (R, C) is the largest; below 0 is never matched."""
    from kernels.cpu import match

    # as distances, of which the solver tells 255 * 256 steps apart; what may not be is as dear as being unmatched
    most = max(float(preference.max(initial=0)), 1.0)
    distance = 255 * (1 - np.maximum(preference, 0) / most)
    columns = match(distance.astype(np.float32), np.zeros(len(distance), np.float32))
    rows = np.flatnonzero(columns >= 0)
    rows = rows[preference[rows, columns[rows]] >= 0]
    return rows, columns[rows]
