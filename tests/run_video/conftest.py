"""Fixtures: the command, a model and a clip."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import run_video
from tests.pipeline.fakes import write_clip
from tests.pipeline.onnx_models import blob_frame, write_blob_model
from tests.run_video.outcomes import COUNT, WH, Outcome, position


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> Path:
    return write_blob_model(tmp_path_factory.mktemp("model") / "blobs.onnx")


@pytest.fixture(scope="session")
def clip(tmp_path_factory) -> Path:
    """A blob that moves to the right by 8 pixels per frame."""
    path = tmp_path_factory.mktemp("clip") / "walk.mp4"
    return write_clip(path, COUNT, wh=WH, picture=lambda i: blob_frame(WH, [(*position(i), 0.5)]))


@pytest.fixture
def run_command(model, capfd) -> Callable[..., Outcome]:
    """Run the command in this process: status, lines of stdout and of stderr."""

    def run(*arguments: object) -> Outcome:
        argv = [str(argument) for argument in arguments]
        if "--model" not in argv:
            argv += ["--model", str(model)]
        try:
            status = run_video.main(argv)
        except SystemExit as stopped:  # argparse
            status = int(str(stopped.code))
        captured = capfd.readouterr()
        return status, captured.out.splitlines(), captured.err.splitlines()

    return run
