"""Networks that several files of this folder use."""

from __future__ import annotations

import pytest

from export.hrnet import HigherHRNet
from export.model import build_model
from tests.export.networks import Small, drawn


@pytest.fixture(scope="session")
def w32():
    return drawn(build_model("w32"))


@pytest.fixture(scope="session")
def narrow():
    """HigherHRNet at a width that computes in no time; every layer is there."""
    return drawn(HigherHRNet(4))


@pytest.fixture
def small():
    return drawn(Small())
