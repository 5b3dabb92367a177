"""The documentation's extension that lists arguments."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

pytest.importorskip("griffe", reason="the extra `docs` is not installed")
EXTENSION = Path(__file__).parents[1] / "docs" / "argument_lists.py"


@pytest.fixture(scope="module")
def with_lists():
    spec = importlib.util.spec_from_file_location("argument_lists", EXTENSION)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.with_lists


def test_each_described_argument_is_an_item(with_lists):
    text = "Runs it.\n\nlimit: stop after\n    this many. serial: one after another.\nRaises ValueError: none left."
    assert with_lists(text, {"limit", "serial"}) == (
        "Runs it.\n\n* **limit**: stop after this many.\n* **serial**: one after another.\n\n"
        "Raises ValueError: none left."
    )


def test_several_names_share_a_description_and_other_colons_are_text(with_lists):
    assert with_lists("a, b: sizes: in pixels.", {"a", "b"}) == "* **a, b**: sizes: in pixels."


def test_a_paragraph_without_arguments_keeps_its_lines(with_lists):
    text = "First.\n\n    code: a\n      more"
    assert with_lists(text, {"limit"}) == text
