"""Networks for tests: the recorded recipe for weights, and one that is small enough to export in no time."""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TypeVar

import torch
from torch import Tensor, nn

from export.head import HigherHead, conv_bn

Model = TypeVar("Model", bound=nn.Module)


@cache
def recipe() -> ModuleType:
    """generate_inputs.py of the golden folder, as a module."""
    path = Path(__file__).parents[1] / "golden" / "generate_inputs.py"
    spec = importlib.util.spec_from_file_location("generate_inputs", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def drawn(model: Model) -> Model:
    """The model in evaluation mode with weights by the recorded recipe."""
    state = {key: torch.from_numpy(recipe().weights(key, tuple(v.shape))) for key, v in model.state_dict().items()}
    model.load_state_dict(state)
    return model.eval()


class Small(HigherHead):
    """The paper's head over two convolutions."""

    def __init__(self, joints: int = 17, **switches: int) -> None:
        super().__init__(8, joints, **switches)  # type: ignore[arg-type]  # True and False are integers
        self.stem = nn.Sequential(conv_bn(3, 8, 3, 2), conv_bn(8, 8, 3, 2))

    def features(self, image: Tensor) -> Tensor:
        features: Tensor = self.stem(image)
        return features
