"""How large a network is and how much it computes, without computing it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from export.model import build_model


def measure(name: str, hw: tuple[int, int], **arguments: Any) -> tuple[int, int]:
    """Parameters, and multiply-adds of the convolutions for one image of size `hw`, of build_model(name, **arguments).

    Only shapes are followed (torch's meta device). One multiply-add is two floating-point operations.
    """
    multiply_adds = 0

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal multiply_adds
        weight = module.weight
        assert isinstance(weight, Tensor)
        # A weight's first axis is the output's channels in a convolution, the input's in a transposed one; each
        # element of that side meets all other weights of its channel.
        element_of = inputs[0] if isinstance(module, nn.ConvTranspose2d) else output
        multiply_adds += element_of.numel() * weight[0].numel()

    with torch.device("meta"), torch.no_grad():
        model = build_model(name, **arguments).eval()
        for module in model.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                module.register_forward_hook(count)
        model(torch.empty(1, 3, *hw))
    return sum(parameter.numel() for parameter in model.parameters()), multiply_adds
