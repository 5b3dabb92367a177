"""Jitter out of poses, with little lag: an adaptive low-pass filter for every joint of every person that has an id.

As in the One-Euro filter (Casiez et al. 2012), what hardly moves is smoothed and what moves is followed. Three rules
differ, because One-Euro trades each percent of jitter for lag (`python -m benchmarks.smoothing` compares them):

* A joint is compared with where the body's motion would have carried it, so that somebody who walks does not lag.
* How closely a joint is followed depends on its distance from that place in this frame, not on a smoothed speed. The
  distance counts in COCO's tolerance for the joint, which is narrow for eyes and wide for hips, and in its confidence.
* A joint that jumps away is moved only once a second frame confirms the jump: most jumps are errors of one frame.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from core.joints import sigmas_for
from pipeline.people.sizes import body_sizes, masked_medians
from pipeline.types import People

# Chosen on the bundled drawn clip and three others (`random_cast` of seeds 900001 to 900003), all frames at 25 FPS.
TOLERANCE = 0.48  # in COCO sigmas times the body size: at this distance half of the difference is taken on
SHARPNESS = 1.35  # exponent of the distance
DOUBT = 3.0  # a joint of confidence 0 has 1 + DOUBT times the tolerance
LEAST_GAIN = 0.005  # of any difference, however small
JUMP = 0.19  # body sizes: a joint of sigma 0.07 that is farther away has jumped
BODY_S = 0.05  # over which the velocity of the body is averaged
SIZE_S = 0.38  # over which its size is averaged
GAP_S = 0.5
FRAME_S = 0.04  # between the frames for which the gains are stated
SHORTEST_S = 1e-3  # between two frames: some streams repeat timestamps
MEDIAN_SIGMA = 0.07
FEWEST_JOINTS = 3  # whose median is the body's motion

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass
class _Memory:
    """N people, a row each."""

    ids: NDArray[np.int64]  # (N,)
    xy: Floats  # (N, K, 2): each joint as shown last, pixels
    measured: Floats  # (N, K, 2): as found last, or as shown if the last one found was not believed
    jumped: Flags  # (N, K): the last one found was not believed
    seen_at: Floats  # (N, K): seconds; -inf where never
    velocity: Floats  # (N, 2): of the body, pixels a second; NaN until it is known
    size: Floats  # (N,): of the body, pixels, averaged; 0 where unknown

    @classmethod
    def empty(cls, ids: NDArray[np.int64], joints: int) -> _Memory:
        people = len(ids)
        xy, never = np.zeros((people, joints, 2)), np.full((people, joints), -np.inf)
        jumped, zeros = np.zeros((people, joints), np.bool_), np.zeros(people)
        return cls(ids, xy, xy, jumped, never, np.full((people, 2), np.nan), zeros)

    def pick(self, which: NDArray[np.intp]) -> _Memory:
        return _Memory(*(getattr(self, one.name)[which] for one in fields(self)))

    def joined(self, other: _Memory) -> _Memory:
        return _Memory(*(np.concatenate([getattr(self, one.name), getattr(other, one.name)]) for one in fields(self)))


class Smoother:
    """Smooths the people of one source. People without an id pass unchanged, and a new id starts without a past.

    tolerance: larger holds joints stiller, and lags more; in COCO sigmas times the body size.
    jump: a joint that is farther from its expected place must be confirmed by a second frame; in body sizes.
    gap_s: a joint that was not found for longer starts without a past, seconds.
    Raises ValueError if one of them is not positive.
    """

    def __init__(self, *, tolerance: float = TOLERANCE, jump: float = JUMP, gap_s: float = GAP_S) -> None:
        if not (tolerance > 0 and jump > 0 and gap_s > 0):
            raise ValueError(f"tolerance {tolerance}, jump {jump}, gap_s {gap_s}; all must be positive")
        self._tolerance, self._jump, self._gap_s = tolerance, jump, gap_s
        self._time_s = -np.inf
        self._memory = _Memory.empty(np.zeros(0, np.int64), 0)

    def update(self, people: People, time_s: float) -> People:
        """The same people with smoothed keypoints; missing joints stay missing, and scores stay.

        time_s: of the frame, from the source's start; where it runs back, nobody has a past.
        """
        joints = people.keypoints.shape[1]
        if time_s < self._time_s or self._memory.seen_at.shape[1] != joints:
            self._memory = _Memory.empty(np.zeros(0, np.int64), joints)
        self._time_s = time_s
        rows = np.flatnonzero(people.ids)
        now = self._remembered(people.ids[rows])
        self._filter(now, people.pick(rows), time_s)
        absent = ~np.isin(self._memory.ids, now.ids)
        recent = self._memory.seen_at.max(axis=1, initial=-np.inf) >= time_s - self._gap_s
        self._memory = now.joined(self._memory.pick(np.flatnonzero(absent & recent)))
        keypoints = people.keypoints.copy()
        keypoints[rows] = np.where(people.keypoint_scores[rows][..., None] > 0, now.xy, 0)
        return replace(people, keypoints=keypoints)

    def _remembered(self, ids: NDArray[np.int64]) -> _Memory:
        """A row for each id: its past, or an empty one."""
        new = ids[~np.isin(ids, self._memory.ids)]
        everybody = self._memory.joined(_Memory.empty(new, self._memory.seen_at.shape[1]))
        by_id = np.argsort(everybody.ids)
        return everybody.pick(by_id[np.searchsorted(everybody.ids[by_id], ids)])

    def _filter(self, now: _Memory, people: People, time_s: float) -> None:
        """Move the memory on to this frame, in place. people: a row each, as in the memory."""
        measured, found = people.keypoints.astype(np.float64), people.keypoint_scores > 0
        fresh = time_s - now.seen_at > self._gap_s  # (N, K): without a past
        elapsed_s = np.clip(time_s - now.seen_at, SHORTEST_S, self._gap_s)
        known = found & ~fresh
        _follow_size(now, body_sizes(people.boxes()), elapsed_s.min(axis=1))
        _follow_body(now, (measured - now.measured) / elapsed_s[..., None], known, elapsed_s)

        expected = now.xy + np.nan_to_num(now.velocity)[:, None] * elapsed_s[..., None]
        away = np.sqrt(((measured - expected) ** 2).sum(axis=2)) / now.size[:, None]  # (N, K) body sizes
        sigmas = np.array(sigmas_for(found.shape[1]))
        jumped = known & ~now.jumped & (away > self._jump * np.sqrt(sigmas / MEDIAN_SIGMA))
        doubt = 1 + DOUBT * np.clip(1 - people.keypoint_scores, 0, 1)
        gain = _gain(away, self._tolerance * sigmas * doubt, elapsed_s)
        gain = np.where(fresh, 1.0, np.where(jumped, 0.0, gain))

        xy = np.where(fresh[..., None], measured, expected + gain[..., None] * (measured - expected))
        now.measured = np.where(found[..., None], np.where(jumped[..., None], xy, measured), now.measured)
        now.xy = np.where(found[..., None], xy, now.xy)
        now.jumped = np.where(found, jumped, now.jumped)
        now.seen_at = np.where(found, time_s, now.seen_at)


def _follow_size(now: _Memory, size: Floats, since_s: Floats) -> None:
    gain = np.where(now.size > 0, 1 - np.exp(-since_s / SIZE_S), 1.0)
    now.size += gain * (size - now.size)


def _follow_body(now: _Memory, slopes: Floats, known: Flags, elapsed_s: Floats) -> None:
    """Average the median of the joints' velocities, slopes (N, K, 2), into the body's."""
    rows = np.flatnonzero(known.sum(axis=1) >= FEWEST_JOINTS)
    if len(rows) == 0:
        return
    since_s = np.min(np.where(known, elapsed_s, np.inf), axis=1)[rows]
    gain = (1 - np.exp(-since_s / BODY_S))[:, None]
    before, median = now.velocity[rows], masked_medians(slopes[rows], known[rows])
    now.velocity[rows] = np.where(np.isnan(before), median, before + gain * (median - before))


def _gain(away: Floats, tolerance: Floats, elapsed_s: Floats) -> Floats:
    """(N, K), 0 to 1: how much of the difference is taken on; half of it at the tolerance, after FRAME_S."""
    near, far = tolerance**SHARPNESS, away**SHARPNESS
    gain = LEAST_GAIN + (1 - LEAST_GAIN) * far / (far + near)
    return np.asarray(1 - (1 - gain) ** (elapsed_s / FRAME_S))
