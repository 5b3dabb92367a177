"""The network against the authors': names, shapes, and numbers they recorded."""

from __future__ import annotations

import importlib.util
import json

import numpy as np
import pytest
import torch

from export.model import build_model

MODELS = {"w32": ("w32", 17), "w48": ("w48", 17), "w32_crowdpose": ("w32", 14)}


@pytest.fixture(scope="session")
def inputs(golden_dir):
    """generate_inputs.py of the golden folder, as a module."""
    spec = importlib.util.spec_from_file_location("generate_inputs", golden_dir / "generate_inputs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("case", MODELS)
def test_names_and_shapes_are_the_authors(case, golden_dir):
    expected = json.loads((golden_dir / "state_dict_shapes.json").read_text())[case]
    with torch.device("meta"):
        model = build_model(MODELS[case][0], joints=MODELS[case][1])
    assert len(expected) == 1810
    assert {key: list(value.shape) for key, value in model.state_dict().items()} == expected


@pytest.mark.parametrize("case", MODELS)
def test_outputs_are_the_authors(case, golden_dir, inputs):
    model = build_model(MODELS[case][0], joints=MODELS[case][1]).eval()
    state = {key: torch.from_numpy(inputs.weights(key, tuple(v.shape))) for key, v in model.state_dict().items()}
    model.load_state_dict(state)
    with torch.inference_mode():
        outputs = model(torch.from_numpy(inputs.image(128, 192)))
    recorded = np.load(golden_dir / f"forward_{case}_128x192.npz")
    for name, output in zip(("quarter", "half"), outputs, strict=True):
        np.testing.assert_allclose(output.numpy(), recorded[name], atol=1e-3, rtol=0)  # worst seen: 7e-5
