"""How large a network is and how much it computes, without computing it."""

from __future__ import annotations

from typing import Unpack

import torch
from torch.utils.flop_counter import FlopCounterMode

from export.head import HeadSwitches
from export.model import build_model


def measure(name: str, hw: tuple[int, int], joints: int = 17, **switches: Unpack[HeadSwitches]) -> tuple[int, int]:
    """Parameters, and multiply-adds for one image of size `hw`, of build_model(name, joints, **switches).

    Only shapes are followed (torch's meta device). One multiply-add is two floating-point operations.
    """
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        model = build_model(name, joints, **switches).eval()
        model(torch.empty(1, 3, *hw))
    return sum(parameter.numel() for parameter in model.parameters()), counter.get_total_flops() // 2
