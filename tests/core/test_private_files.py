"""Caches and plans are for their user alone."""

from __future__ import annotations

import stat
import sys

import pytest

from core.files import cache_folder, write_whole

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="modes of POSIX")


def test_the_cache_is_for_its_user_alone_also_where_it_was_open_before(tmp_path, monkeypatch):
    monkeypatch.setattr("core.files.user_cache_path", lambda name, appauthor: tmp_path / name)
    (tmp_path / "higherpose").mkdir(mode=0o755)
    folder = cache_folder("plans")
    assert stat.S_IMODE(folder.parent.stat().st_mode) == 0o700


def test_a_private_file_is_so_from_its_first_byte_on(tmp_path):
    write_whole(tmp_path / "a.plan", b"code", private=True)
    write_whole(tmp_path / "b.onnx", b"open")
    assert stat.S_IMODE((tmp_path / "a.plan").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "b.onnx").stat().st_mode) & 0o044
