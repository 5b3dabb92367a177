"""Networks that several files of this folder use."""

from __future__ import annotations

import importlib.util

import pytest
import torch

from export.model import HigherHRNet, build_model


@pytest.fixture(scope="session")
def inputs(golden_dir):
    """generate_inputs.py of the golden folder, as a module."""
    spec = importlib.util.spec_from_file_location("generate_inputs", golden_dir / "generate_inputs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def draw(inputs):
    """draw(model): the model in evaluation mode with the recorded weights' recipe."""

    def load(model):
        model.load_state_dict(
            {key: torch.from_numpy(inputs.weights(key, tuple(v.shape))) for key, v in model.state_dict().items()}
        )
        return model.eval()

    return load


@pytest.fixture(scope="session")
def w32(draw):
    return draw(build_model("w32"))


@pytest.fixture(scope="session")
def narrow(draw):
    """HigherHRNet at a width that computes in no time; every layer is there."""
    return draw(HigherHRNet(4))
