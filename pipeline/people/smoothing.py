"""Jitter out of poses, with little lag: the One-Euro filter for every joint of every person that has an id.

Source: Casiez et al. 2012, "1 € Filter". A low-pass filter whose cutoff rises with speed: slow joints are held still,
fast ones are followed. Speed counts in body sizes a second, so that near and far people are treated alike.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from pipeline.people.sizes import body_sizes
from pipeline.types import People

# `python -m benchmarks.smoothing`: a lower BETA_HZ takes out more jitter (1.5: 62 % of still joints' instead of 40 %)
# and leaves walkers a frame behind themselves, which costs half of the AP on the drawn clip (8: 4 points).
MIN_CUTOFF_HZ = 0.5  # for a joint that stands still
BETA_HZ = 8.0  # more for each body size a second
SPEED_CUTOFF_HZ = 1.0  # by which the speed itself is smoothed
GAP_S = 0.5
SHORTEST_S = 1e-3  # between two frames: some streams repeat timestamps

Floats = NDArray[np.float64]


@dataclass
class _Memory:
    """N people, a row each."""

    ids: NDArray[np.int64]  # (N,)
    found: Floats  # (N, K, 2): where each joint was found last, pixels
    smooth: Floats  # (N, K, 2): where it was put
    velocity: Floats  # (N, K, 2): pixels a second, smoothed
    seen_at: Floats  # (N, K): seconds; -inf where never

    @classmethod
    def empty(cls, ids: NDArray[np.int64], joints: int) -> _Memory:
        xy = np.zeros((len(ids), joints, 2))
        return cls(ids, xy, xy, xy, np.full((len(ids), joints), -np.inf))

    def pick(self, which: NDArray[np.intp]) -> _Memory:
        return _Memory(*(getattr(self, one.name)[which] for one in fields(self)))

    def joined(self, other: _Memory) -> _Memory:
        return _Memory(*(np.concatenate([getattr(self, one.name), getattr(other, one.name)]) for one in fields(self)))


class Smoother:
    """Smooths the people of one source. Who has no id passes unchanged, and a new id starts without a past.

    min_cutoff_hz: less holds still joints stiller. beta_hz: less smooths moving joints more, and lags more.
    gap_s: a joint that was not found for longer starts without a past.
    """

    def __init__(self, *, min_cutoff_hz: float = MIN_CUTOFF_HZ, beta_hz: float = BETA_HZ, gap_s: float = GAP_S) -> None:
        if not (min_cutoff_hz > 0 and beta_hz > 0 and gap_s > 0):
            raise ValueError(f"min_cutoff_hz {min_cutoff_hz}, beta_hz {beta_hz}, gap_s {gap_s}; all must be positive")
        self._min_cutoff_hz, self._beta_hz, self._gap_s = min_cutoff_hz, beta_hz, gap_s
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
        named = np.flatnonzero(people.ids)
        now = self._past(people.ids[named])
        found = people.keypoint_scores[named] > 0
        self._filter(now, people.keypoints[named].astype(np.float64), found, body_sizes(people.boxes()[named]), time_s)
        absent = ~np.isin(self._memory.ids, now.ids)
        recent = self._memory.seen_at.max(axis=1, initial=-np.inf) >= time_s - self._gap_s
        self._memory = now.joined(self._memory.pick(np.flatnonzero(absent & recent)))
        keypoints = people.keypoints.copy()
        keypoints[named] = np.where(found[..., None], now.smooth, 0)
        return replace(people, keypoints=keypoints)

    def _past(self, ids: NDArray[np.int64]) -> _Memory:
        """A row for each id: what is remembered, or nothing."""
        strangers = ids[~np.isin(ids, self._memory.ids)]
        everybody = self._memory.joined(_Memory.empty(strangers, self._memory.seen_at.shape[1]))
        by_id = np.argsort(everybody.ids)
        return everybody.pick(by_id[np.searchsorted(everybody.ids[by_id], ids)])

    def _filter(self, now: _Memory, xy: Floats, found: NDArray[np.bool_], size: Floats, time_s: float) -> None:
        """Move the memory on to this frame, in place."""
        elapsed_s = time_s - now.seen_at  # (N, K)
        fresh = (elapsed_s > self._gap_s)[..., None]
        elapsed_s = np.clip(elapsed_s, SHORTEST_S, self._gap_s)[..., None]
        slope = np.where(fresh, 0, (xy - now.found) / elapsed_s)
        velocity = now.velocity + _gain(SPEED_CUTOFF_HZ, elapsed_s) * (slope - now.velocity)
        speed = np.sqrt((velocity**2).sum(axis=2, keepdims=True)) / size[:, None, None]  # sizes a second
        gain = np.where(fresh, 1.0, _gain(self._min_cutoff_hz + self._beta_hz * speed, elapsed_s))
        there = found[..., None]
        now.smooth = np.where(there, now.smooth + gain * (xy - now.smooth), now.smooth)
        now.velocity = np.where(there, np.where(fresh, 0, velocity), now.velocity)
        now.found = np.where(there, xy, now.found)
        now.seen_at = np.where(found, time_s, now.seen_at)


def _gain(cutoff_hz: Floats | float, elapsed_s: Floats) -> Floats:
    """How much of the difference a first-order low-pass filter takes on after that time, 0 to 1."""
    turns = 2 * np.pi * cutoff_hz * elapsed_s
    return np.asarray(turns / (turns + 1))
