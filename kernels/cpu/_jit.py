"""Compilation: `inner` for functions called by others, `entry` for those that Python calls; machine code is cached.

The cache is a folder named by a digest of this package's sources and of the shared rules, since Numba itself looks only
at the file of the function it loads, and would keep what that file used of another one. It lies in NUMBA_CACHE_DIR if
that is set, else in this folder's __pycache__, else (a read-only checkout) in the user's cache; where none can be
written, nothing is kept.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
from numba.core import config

HERE = Path(__file__).parent
RULES = HERE.parent / "rules.py"  # compiled into this package's functions

inner = numba.njit(nogil=True)
_numba_config = threading.Lock()


def entry(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function compiled at its first call, or loaded from the cache; releases the GIL."""
    folder = cache_folder()
    if folder is None:
        return numba.njit(nogil=True)(function)  # type: ignore[no-any-return]
    with _numba_config:
        before = config.CACHE_DIR
        config.CACHE_DIR = str(folder)  # read once, by the decorator
        try:
            return numba.njit(nogil=True, cache=True)(function)  # type: ignore[no-any-return]
        finally:
            config.CACHE_DIR = before


def cache_folder() -> Path | None:
    """The first writable place of those above, created if it does not exist; None if there is none."""
    digest = hashlib.sha256()
    for source in [RULES, *sorted(HERE.glob("*.py"))]:
        digest.update(source.read_bytes())
    user_cache = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser())
    given = [Path(config.CACHE_DIR)] if config.CACHE_DIR else []
    for place in [*given, HERE / "__pycache__", user_cache / "higherpose"]:
        folder = place / f"njit-{digest.hexdigest()[:12]}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                return folder
        except OSError:
            continue
    return None
