"""Compiled kernels on disk, so that a process does not compile what an earlier one has. Nothing of CUDA is imported.

Numba's own `cache=True` serves this project badly: it looks only at the file of the kernel, and would keep machine code
of a device function that has changed in another one; it lies beside the sources; and an entry that was cut short ends
the program. Here an entry is named by everything that its code depends on, and what cannot be read is compiled again.
An entry is JSON with the machine code (machine_code.py). The GPU runs that: only this user may write an entry, and one
that others could have written is not read.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import os
import re
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np

from core.files import cache_folder, write_whole

logger = logging.getLogger(__name__)

HERE = Path(__file__).parent
RULES = HERE.parent / "rules.py"  # compiled into what is here
WHEELS = ("nvidia-nvvm", "nvidia-cuda-nvcc", "nvidia-nvjitlink", "nvidia-cuda-nvrtc")
COMPILERS = ("numba", "numba-cuda", "llvmlite", "cuda-core", "cuda-bindings", *WHEELS, *(f"{w}-cu12" for w in WHEELS))
OTHERS_WRITE = 0o022  # the mode's bits


class KernelCache:
    """What a kernel of Numba asks before it compiles, and gives what it compiled: the methods are those of Numba's.

    function: the kernel's Python function; its parameters are what it, and the device functions in it, take from the
    functions around them. environment: what else the machine code depends on, asked at each compilation: compute
    capability, versions. to_data: gives a compiled kernel as data for JSON, or raises ValueError; from_data: the kernel
    of such data and the arguments' types. Two processes that compile at once both write; an entry is whole or absent.
    """

    def __init__(
        self,
        function: FunctionType,
        environment: Callable[[], tuple[object, ...]],
        to_data: Callable[[Any], dict[str, Any]],
        from_data: Callable[[dict[str, Any], Any], Any],
    ) -> None:
        self._function, self._environment = function, environment
        self._to_data, self._from_data = to_data, from_data

    @property
    def cache_path(self) -> str:
        return str(cache_folder("kernels"))

    def load_overload(self, signature: object, target_context: object) -> Any:
        """The compiled kernel, or None."""
        path = self.entry(signature)
        try:
            if not _is_ours(path):
                return None
            content = path.read_bytes()
        except OSError:
            return None
        digest, code = content[:32], content[32:]
        if hashlib.sha256(code).digest() != digest:
            logger.info("%s is damaged, the kernel is compiled again", path)
            return None
        try:
            return self._from_data(json.loads(code), signature)
        except Exception as error:  # whatever Numba raises for what another program wrote
            logger.info("%s cannot be read (%s), the kernel is compiled again", path, error)
            return None

    def save_overload(self, signature: object, kernel: object) -> None:
        path = self.entry(signature)
        try:
            code = json.dumps(self._to_data(kernel)).encode()
            write_whole(path, hashlib.sha256(code).digest() + code, private=True)
        except (OSError, ValueError) as error:
            logger.info("%s cannot be kept, each process compiles it: %s", path.name, error)

    def entry(self, signature: object) -> Path:
        """The file of the kernel for arguments of these types."""
        key = (sources_digest(), described(self._function), str(signature), *self._environment())
        name = re.sub(r"\W", "", self._function.__name__)
        return cache_folder("kernels") / f"{name}-{hashlib.sha256(repr(key).encode()).hexdigest()[:24]}.kernel"

    def flush(self) -> None:
        """Numba asks for it before it recompiles everything, which this project never does."""

    enable = disable = flush


def _is_ours(path: Path) -> bool:
    """Whether only this user can have written the file. Raises OSError."""
    state = path.stat()
    return os.name != "posix" or (state.st_uid == os.getuid() and not state.st_mode & OTHERS_WRITE)


@functools.cache
def sources_digest() -> str:
    digest = hashlib.sha256()
    for source in [RULES, *sorted(HERE.glob("*.py"))]:
        digest.update(source.read_bytes())
    return digest.hexdigest()


@functools.cache
def compiler_versions() -> tuple[str, ...]:
    """The version of each package that has a part in compiling a kernel, "" where it is not installed."""
    versions = []
    for package in COMPILERS:
        try:
            versions.append(version(package))
        except PackageNotFoundError:  # the CUDA toolkit of the system has it, whose version is asked for as well
            versions.append("")
    return tuple(versions)


def described(value: object) -> object:
    """What of a kernel's function is not in the sources: the values that it and its device functions are closed over.

    Raises TypeError for a value of which this cannot tell what it does to the code.
    """
    function = getattr(value, "py_func", value)
    if isinstance(function, FunctionType):
        cells = function.__closure__ or ()
        values = tuple(described(cell.cell_contents) for cell in cells)
        return function.__module__, function.__qualname__, values
    if isinstance(value, tuple):
        return tuple(map(described, value))
    if value is None or isinstance(value, (bool, int, float, str, np.generic)):
        return type(value).__name__, repr(value)
    raise TypeError(f"a kernel is closed over a {type(value).__name__}; expected numbers, strings and device functions")
