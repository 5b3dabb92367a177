"""build_model: a network by its name, over HigherHRNet, Tiny, Small and NarrowHigher. Needs torch."""

from __future__ import annotations

from typing import Unpack

from export.head import HeadSwitches, HigherHead
from export.hrnet import HigherHRNet
from export.narrow import NarrowHigher
from export.small import Small
from export.tiny import build_tiny

WIDTHS = {"w32": 32, "w48": 48}
BUNDLED = ("tiny", "small")
NARROW = "narrow"  # NarrowHigher: no published weights
MODELS = (*WIDTHS, *BUNDLED, NARROW)

# The paper's ablation, each row on top of the one before; the last row is HigherHRNet.
ABLATION: dict[str, HeadSwitches] = {
    "HRNet baseline": {"deconvolutions": 0},
    "+ multi-resolution supervision": {"concatenate": False, "aggregate": False, "residual_blocks": 0},
    "+ feature concatenation": {"aggregate": False, "residual_blocks": 0},
    "+ heatmap aggregation": {"residual_blocks": 0},
    "+ extra residual blocks": {},
}


def build_model(name: str, joints: int = 17, **switches: Unpack[HeadSwitches]) -> HigherHead:
    """The network "w32", "w48", "tiny", "small" or "narrow", random weights; `model(image)` gives what HigherHead says.

    switches: keyword arguments of HigherHead; "tiny" and "small" take none. Raises ValueError for an unknown name
    or value.
    """
    if name in WIDTHS:
        return HigherHRNet(WIDTHS[name], joints, **switches)
    if name == NARROW:
        return NarrowHigher(joints, **switches)
    if name not in BUNDLED:
        raise ValueError(f"no model is called {name!r}; expected one of {', '.join(MODELS)}")
    if switches:
        raise ValueError(
            f"{name} has no switches, got {', '.join(switches)}; they belong to {', '.join((*WIDTHS, NARROW))}"
        )
    return build_tiny(joints=joints) if name == "tiny" else Small(joints)
