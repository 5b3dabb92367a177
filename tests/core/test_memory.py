"""The limit on malloc's arenas: that glibc takes it, and that other libraries do without."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from core import memory

ROOT = Path(__file__).parents[2]
# Thirty threads at once, each with memory of its own; the last line of malloc_stats before the totals names the arenas.
PROGRAM = """
import ctypes, sys, threading
from core.memory import limit_arenas
if sys.argv[1] == "limit":
    assert limit_arenas(2)
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
gate = threading.Barrier(30)
def work():
    gate.wait()
    for _ in range(200):
        libc.malloc(1000)
threads = [threading.Thread(target=work) for _ in range(30)]
for thread in threads: thread.start()
for thread in threads: thread.join()
libc.malloc_stats()
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="malloc here is not glibc's")
def test_threads_share_two_arenas():
    def arenas(word: str) -> int:
        run = subprocess.run(
            [sys.executable, "-c", PROGRAM, word], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
        )
        return sum(line.startswith("Arena ") for line in run.stderr.splitlines())

    assert arenas("limit") <= 2 < arenas("free")


def test_another_c_library_is_left_as_it_is(monkeypatch):
    monkeypatch.setattr("core.memory.sys.platform", "linux")
    monkeypatch.setattr("core.memory.ctypes.CDLL", lambda name: SimpleNamespace())
    assert not memory.limit_arenas()


def test_other_systems_are_not_asked(monkeypatch):
    monkeypatch.setattr("core.memory.sys.platform", "darwin")
    monkeypatch.setattr("core.memory.ctypes.CDLL", lambda name: pytest.fail("asked"))
    assert not memory.limit_arenas()
