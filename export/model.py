"""build_model: a network by its name, over HigherHRNet and Tiny. Needs torch."""

from __future__ import annotations

from typing import Unpack

from export.head import HeadSwitches, HigherHead
from export.hrnet import HigherHRNet
from export.tiny import build_tiny

WIDTHS = {"w32": 32, "w48": 48}
MODELS = (*WIDTHS, "tiny")

# The paper's ablation, each row on top of the one before; the last row is HigherHRNet.
ABLATION: dict[str, HeadSwitches] = {
    "HRNet baseline": {"deconvolutions": 0},
    "+ multi-resolution supervision": {"concatenate": False, "aggregate": False, "residual_blocks": 0},
    "+ feature concatenation": {"aggregate": False, "residual_blocks": 0},
    "+ heatmap aggregation": {"residual_blocks": 0},
    "+ extra residual blocks": {},
}


def build_model(name: str, joints: int = 17, **switches: Unpack[HeadSwitches]) -> HigherHead:
    """The network "w32", "w48" or "tiny" with random weights; `model(image)` gives (quarter, half), see HigherHead.

    switches: keyword arguments of HigherHead; "tiny" takes none. Raises ValueError for an unknown name or value.
    """
    if name in WIDTHS:
        return HigherHRNet(WIDTHS[name], joints, **switches)
    if name != "tiny":
        raise ValueError(f"no model is called {name!r}; expected one of {', '.join(MODELS)}")
    if switches:
        raise ValueError(f"tiny has no switches, got {', '.join(switches)}; they belong to {', '.join(WIDTHS)}")
    return build_tiny(joints=joints)
