import numpy as np
import pytest
from numba.core import config

from kernels.cpu import _jit


@pytest.fixture
def places(tmp_path, monkeypatch):
    """Sources, the user's cache and NUMBA_CACHE_DIR, all in tmp_path; nothing of the real ones is touched."""
    package = tmp_path / "package"
    package.mkdir()
    (package / "a.py").write_text("one = 1\n")
    monkeypatch.setattr(_jit, "HERE", package)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    monkeypatch.setattr(config, "CACHE_DIR", "")
    return tmp_path


def test_the_cache_lies_beside_the_sources(places):
    folder = _jit.cache_folder()
    assert folder is not None and folder.parent == places / "package" / "__pycache__"


def test_a_read_only_checkout_uses_the_users_cache(places):
    (places / "package" / "__pycache__").write_text("a file where the folder should be")
    folder = _jit.cache_folder()
    assert folder is not None and folder.parent == places / "user" / "higherpose"


def test_numba_cache_dir_comes_first(places, monkeypatch):
    monkeypatch.setattr(config, "CACHE_DIR", str(places / "asked"))
    folder = _jit.cache_folder()
    assert folder is not None and folder.parent == places / "asked"


def test_a_change_in_any_source_is_another_cache(places):
    before = _jit.cache_folder()
    (places / "package" / "b.py").write_text("two = 2\n")
    assert _jit.cache_folder() != before


def test_a_change_in_the_shared_rules_is_another_cache(places, monkeypatch):
    (places / "rules.py").write_text("NEAR = 0.75\n")
    monkeypatch.setattr(_jit, "RULES", places / "rules.py")
    before = _jit.cache_folder()
    (places / "rules.py").write_text("NEAR = 0.5\n")
    assert _jit.cache_folder() != before


def test_with_nowhere_to_write_it_compiles_all_the_same(places):
    (places / "package" / "__pycache__").write_text("")
    (places / "user").write_text("")
    assert _jit.cache_folder() is None
    assert _jit.entry(_twice)(21) == 42


def test_an_entry_is_cached_and_numbas_setting_is_left_alone(places):
    twice = _jit.entry(_twice)
    assert twice(np.float64(1.5)) == 3
    assert list((places / "package" / "__pycache__").rglob("*.nbi"))
    assert config.CACHE_DIR == ""


def _twice(x):
    return 2 * x
