"""A compiled kernel of Numba as plain data, and back: machine code of one GPU and its name, no code of Python."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

from cuda.core import ObjectCode
from numba.core.typing import signature
from numba.cuda import types
from numba.cuda.codegen import CUDACodeLibrary
from numba.cuda.dispatcher import _Kernel

Data = dict[str, Any]  # of JSON


def to_data(kernel: _Kernel) -> Data:
    """The kernel's machine code, for each compute capability that it has been linked for.

    Raises ValueError for a kernel that is more than its machine code: one that needs other files, arrays of the
    device or a cooperative launch, or that is compiled for a debugger. This project has none.
    """
    states = kernel._reduce_states()
    library = states["codelibrary"]
    more = {
        "debug information": states["debug"] or states["lineinfo"],
        "extensions": states["extensions"],
        "other files": library._linking_files,
        "objects": library.referenced_objects,
        "a cooperative launch": states["cooperative"] or library.use_cooperative,
        "functions that run at its loading": library._setup_functions or library._teardown_functions,
        "a carveout": states.get("shared_memory_carveout") is not None,
        "a launch's configuration": states.get("launch_config_sensitive", False),
    }
    if any(more.values()):
        raise ValueError(f"it has {', '.join(name for name, value in more.items() if value)}")
    if not library._cubin_cache:
        raise ValueError("it is not linked yet")
    return {
        "entry": states["name"],
        "cubins": [
            {"capability": [*capability], "code": base64.b64encode(cubin.code).decode()}
            for capability, cubin in library._cubin_cache.items()
        ],
    }


def from_data(data: Data, argument_types: Sequence[object]) -> _Kernel:
    """The kernel that `to_data` was given. Raises KeyError, TypeError or ValueError for anything else."""
    entry = data["entry"]
    if not isinstance(entry, str):
        raise TypeError(f"entry is {entry!r}; expected a name")
    cubins = {
        tuple(cubin["capability"]): ObjectCode.from_cubin(base64.b64decode(cubin["code"], validate=True))
        for cubin in data["cubins"]
    }
    library = CUDACodeLibrary(None, entry, entry_name=entry)
    library._cubin_cache = cubins
    library._finalized = True  # there is nothing to link
    return _Kernel._rebuild(
        cooperative=False,
        name=entry,
        signature=signature(types.none, *argument_types),
        codelibrary=library,
        debug=False,
        lineinfo=False,
        call_helper=None,  # translates the error codes of kernels with debug information
        extensions=[],
    )
