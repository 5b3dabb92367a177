"""Keeps the resident memory of a process that runs for days small and flat, where glibc allocates it."""

from __future__ import annotations

import ctypes
import gc
import sys
import time
from typing import Any

ARENAS = 2
M_ARENA_MAX = -8  # malloc.h
GIVE_BACK_S = 10.0  # between two returns of freed memory


def limit_arenas(count: int = ARENAS) -> bool:
    """Let glibc's malloc use at most `count` arenas; returns whether it does. Call it before threads are started.

    By default each thread gets an arena of its own, up to eight for every core, and each keeps what was once freed in
    it. With eight live sources that is 170 MB more, and it grows for hours.
    """
    mallopt = _of_glibc("mallopt")
    return mallopt is not None and bool(mallopt(M_ARENA_MAX, count))


def set_aside() -> None:
    """Take what exists now, libraries and models, out of the garbage collector's sight. Call it before the frames.

    A collection then looks at what the frames left behind, not at the 80,000 objects of the start: microseconds, not
    70 ms in which no thread of Python runs.
    """
    gc.collect()
    gc.freeze()
    gc.collect()  # the collector now counts from none


class FreedMemory:
    """Returns freed memory to the system, at most once in `every_s` seconds; 1 to 2 ms each time.

    glibc keeps what is freed between two pieces in use. Each connection that breaks off, each viewer who leaves, frees
    many pieces in places where the next one does not fit, so memory would grow for hours.
    """

    def __init__(self, every_s: float = GIVE_BACK_S) -> None:
        self._every_s = every_s
        self._trim = _of_glibc("malloc_trim")
        self._next = time.monotonic() + every_s

    def give_back(self) -> None:
        """Call it once a frame."""
        if self._trim is not None and time.monotonic() >= self._next:
            self._trim(0)
            self._next = time.monotonic() + self._every_s


def _of_glibc(name: str) -> Any:
    """The function of the C library, or None where there is none of this name."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        return getattr(ctypes.CDLL(None), name)
    except (OSError, AttributeError):
        return None
