"""The drawn crowds of tests/golden as the network would give them: heatmaps and tags of one frame."""

from __future__ import annotations

import importlib.util
from functools import lru_cache
from pathlib import Path
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from tests.reference.decode import upsample2


def _generator() -> ModuleType:
    path = Path(__file__).parents[1] / "golden" / "generate_inputs.py"
    spec = importlib.util.spec_from_file_location("generate_inputs", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


generate_inputs = _generator()


@lru_cache(maxsize=4)  # drawing is slower than decoding: tests go case by case
def _one_side(case: str, flipped: bool) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    quarter, half = generate_inputs.heads(case, flipped)
    heatmaps, tags = (upsample2(quarter[0, :17]) + half[0]) * np.float32(0.5), quarter[0, 17:]
    return heatmaps, tags


def network_outputs(case: str, *, flip: bool = False) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """heatmaps (T, 17, H/2, W/2), both stages averaged, and tags (T, 17, H/4, W/4) of a case; T = 2 with flip."""
    sides = [_one_side(case, flipped) for flipped in (False, True)[: 1 + flip]]
    return np.stack([heatmaps for heatmaps, _ in sides]), np.stack([tags for _, tags in sides])


def crowd_outputs(
    people: int, hw: tuple[int, int], *, flip: bool = False
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The same for a crowd of any number and size, drawn like the cases where every person starts at the nose."""
    case = f"{people} people {hw[0]}x{hw[1]}"
    generate_inputs.CASES[case] = (people, people, *hw)
    try:
        return network_outputs(case, flip=flip)
    finally:
        del generate_inputs.CASES[case]
