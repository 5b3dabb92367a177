"""Which tests run where: GPU tests need --require-gpu or a GPU; simulator tests need their own process."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

SIMULATOR = os.environ.get("NUMBA_ENABLE_CUDASIM") == "1"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--require-gpu", action="store_true", help="fail, instead of skipping, where no GPU is found")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """numba reads NUMBA_ENABLE_CUDASIM at import: `sim` tests run only with it, all others only without."""
    kept = [item for item in items if (item.get_closest_marker("sim") is not None) == SIMULATOR]
    if len(kept) < len(items):
        config.hook.pytest_deselected(items=[item for item in items if item not in kept])
        items[:] = kept


@pytest.fixture(scope="session")
def golden_dir() -> Path:
    """Recorded results of the authors' code."""
    return Path(__file__).parent / "golden"


@pytest.fixture(scope="session", autouse=True)
def _compiled_models_elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What OpenVINO compiles for tests is not kept among the user's own."""
    folder = tmp_path_factory.mktemp("compiled")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("engine.openvino_cache.cache_folder", lambda kind: folder / kind)
        yield


@pytest.fixture(scope="session", autouse=True)
def _signals_as_in_a_terminal() -> None:
    """nohup, and a script's `&`, hand down ignored signals, which the programs under test would ignore too."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


@pytest.fixture(autouse=True)
def _needs_gpu(request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("gpu") is None:
        return
    from numba import cuda

    if not cuda.is_available():
        message = "no NVIDIA GPU found by numba-cuda"
        if request.config.getoption("--require-gpu"):
            pytest.fail(message)
        pytest.skip(message)
