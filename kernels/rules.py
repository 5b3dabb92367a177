"""Constants and integer rules that the host and the device share: with them, both give the same bits."""

from __future__ import annotations

import numpy as np

# A map is doubled bilinearly, with pixel centres aligned. A new cell is the sum of two cells with these weights:
NEAR = np.float32(0.75)  # the cell in which it lies
FAR = np.float32(0.25)  # that cell's neighbour on its side; at the border, the cell itself

FAR_AWAY = np.float32(255)  # tag distances are clipped to this, and NaN is replaced by it

# The cost of a pair, in one int64: (DISTANCE_WEIGHT * rint(D) * VALUE_STEPS - rint(value * VALUE_STEPS)) above
# FINE_BITS bits that hold rint(D * FINE_STEPS): the authors' cost, then the unrounded distance, which breaks its ties.
DISTANCE_WEIGHT = 100
VALUE_STEPS = np.float32(2**14)
FINE_STEPS = np.float32(2**8)
FINE_BITS = 23

MIDDLE = np.float32(128)  # U and V of a grey pixel
WHITE = np.float32(255)  # the largest red, green and blue

# Relative slack of the bounds that let a search skip tiles. Tags that are doubled twice stay within 4 ulp (5e-7) of
# the range of their corners; a square root and what is under it round by less.
SLACK = np.float32(2**-20)
