"""Temporary folders: removed with their process, also a killed one; those of running processes stay."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from cluster.scratch import scratch, sweep

HOLDS = """
import sys, time
from cluster.scratch import scratch
with scratch() as folder:
    print(folder, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)


def test_it_is_removed():
    with scratch() as folder:
        (folder / "big").write_text("x")
    assert not folder.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="no flock there")
def test_a_killed_process_leaves_nothing_for_long_and_a_living_one_keeps_its_own():
    with subprocess.Popen(
        [sys.executable, "-c", HOLDS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        folder = Path(process.stdout.readline().strip())
        sweep()
        assert folder.is_dir()
        process.kill()
        process.wait()
        sweep()
        assert not folder.exists()
