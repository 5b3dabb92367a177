"""README.md's code blocks run as they stand, but for those it marks `<!-- not run: why -->`."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FENCE = re.compile(r"(?:^<!-- (not run[^\n]*) -->\n)?^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
BLOCKS = [(bool(skip), kind, text) for skip, kind, text in FENCE.findall((ROOT / "README.md").read_text())]


def run(*command: str) -> str:
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("code", [text for skip, kind, text in BLOCKS if kind == "python" and not skip])
def test_python_runs(code):
    assert run("-c", code).strip()


def test_make_targets_exist():
    """`make demo` and `make test` are run by .ci/run; a test that ran them would run itself."""
    named = {
        target for _, kind, text in BLOCKS if kind == "sh" for target in re.findall(r"^make (\w+)", text, re.MULTILINE)
    }
    makefile = (ROOT / "Makefile").read_text()
    assert {"demo", "test", "gpu"} <= named
    assert [target for target in named if f"\n{target}:" not in makefile] == []


@pytest.mark.parametrize("command", [
    line.split("#")[0].strip()
    for _, kind, text in BLOCKS if kind == "sh" for line in text.splitlines() if line.startswith("python ")
])  # fmt: skip
def test_options_that_are_named_exist(command):
    """Also of the commands that are not run: a misspelt option would be a newcomer's first error."""
    _, *words = shlex.split(command)
    module = words[0] == "-m"
    program, arguments = words[: 1 + module], words[1 + module :]
    shown = run(*program, "--help")
    assert [word for word in arguments if word.startswith("--") and word not in shown] == []


def test_links_lead_somewhere():
    targets = re.findall(r"\]\((?!http)([^)#]+)\)", (ROOT / "README.md").read_text())
    assert len(targets) >= 4
    assert [target for target in targets if not (ROOT / target).exists()] == []
