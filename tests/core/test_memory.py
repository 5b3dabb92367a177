"""What malloc is told: that glibc does it, and that others do without. The garbage collector after the start."""

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

# A hundred megabytes in small pieces; all but one in fifty are freed, so that no end of the heap is free.
HOLES = """
import ctypes
from pathlib import Path
from core.memory import FreedMemory
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
def resident_mb():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6
pieces = []
for _ in range(50_000):
    pieces.append(libc.malloc(2000))
    ctypes.memset(pieces[-1], 1, 2000)
for i, piece in enumerate(pieces):
    if i % 50:
        libc.free(piece)
before = resident_mb()
FreedMemory(every_s=0).give_back()
print(before, resident_mb())
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
    memory.FreedMemory(every_s=0).give_back()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="malloc here is not glibc's")
def test_memory_between_pieces_in_use_is_given_back():
    run = subprocess.run(
        [sys.executable, "-c", HOLES], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    before, after = map(float, run.stdout.split())
    assert before - after > 60


def test_memory_is_given_back_once_in_a_while(monkeypatch):
    trims: list[int] = []
    now = [100.0]
    monkeypatch.setattr("core.memory.sys.platform", "linux")
    monkeypatch.setattr("core.memory.ctypes.CDLL", lambda name: SimpleNamespace(malloc_trim=trims.append))
    monkeypatch.setattr("core.memory.time.monotonic", lambda: now[0])
    freed = memory.FreedMemory(every_s=10)
    for seconds, count in ((100, 0), (109, 0), (110, 1), (111, 1), (119, 1), (120, 2), (500, 3), (505, 3)):
        now[0] = float(seconds)
        freed.give_back()
        assert len(trims) == count
    assert trims == [0, 0, 0]


def test_the_collector_does_not_look_at_what_was_there_before_the_frames():
    program = "import gc, numpy; from core.memory import set_aside; set_aside(); print(len(gc.get_objects()))"
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(run.stdout) < 100
