"""The One-Euro filter for every joint, to compare `pipeline.people.Smoother` with.

Source: Casiez et al. 2012, "1 € Filter". Speed counts in body sizes a second, so that near and far people are alike.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pipeline import People
from pipeline.people.sizes import body_sizes

SPEED_CUTOFF_HZ = 1.0
GAP_S = 0.5

Floats = NDArray[np.float64]


@dataclass
class _Person:
    """What is known of K joints: as found, as shown (K, 2), pixels a second (K, 2), and when each was seen (K,)."""

    found: Floats
    shown: Floats
    velocity: Floats
    seen_at: Floats


class OneEuro:
    """min_cutoff_hz: for a joint that stands still. beta_hz: more for each body size a second."""

    def __init__(self, *, min_cutoff_hz: float = 0.5, beta_hz: float = 8.0) -> None:
        self._min_cutoff_hz, self._beta_hz = min_cutoff_hz, beta_hz
        self._people: dict[int, _Person] = {}

    def update(self, people: People, time_s: float) -> People:
        keypoints = people.keypoints.copy()
        for row, size in enumerate(body_sizes(people.boxes())):
            if people.ids[row]:
                there = people.keypoint_scores[row] > 0
                xy = people.keypoints[row].astype(np.float64)
                keypoints[row] = np.where(
                    there[:, None], self._joints(int(people.ids[row]), xy, there, size, time_s), 0
                )
        return replace(people, keypoints=keypoints)

    def _joints(self, person_id: int, xy: Floats, there: NDArray[np.bool_], size: float, time_s: float) -> Floats:
        zeros = np.zeros_like(xy)
        person = self._people.setdefault(person_id, _Person(xy, xy, zeros, np.full(len(xy), -np.inf)))
        new = (time_s - person.seen_at > GAP_S)[:, None]
        elapsed_s = np.clip(time_s - person.seen_at, 1e-3, GAP_S)[:, None]
        slope = np.where(new, 0, (xy - person.found) / elapsed_s)
        velocity = person.velocity + _gain(SPEED_CUTOFF_HZ, elapsed_s) * (slope - person.velocity)
        speed = np.sqrt((velocity**2).sum(axis=1, keepdims=True)) / size
        gain = np.where(new, 1.0, _gain(self._min_cutoff_hz + self._beta_hz * speed, elapsed_s))
        seen = there[:, None]
        person.shown = np.where(seen, person.shown + gain * (xy - person.shown), person.shown)
        person.velocity = np.where(seen, np.where(new, 0, velocity), person.velocity)
        person.found = np.where(seen, xy, person.found)
        person.seen_at = np.where(there, time_s, person.seen_at)
        return person.shown


def _gain(cutoff_hz: Floats | float, elapsed_s: Floats) -> Floats:
    """How much of the difference a first-order low-pass filter takes on after that time, 0 to 1."""
    turns = 2 * np.pi * cutoff_hz * elapsed_s
    return np.asarray(turns / (turns + 1))
