"""A compiled kernel of Numba as plain data, for JSON: machine code of one GPU and its name, no code of Python."""

from __future__ import annotations

import base64
from typing import Any

Data = dict[str, Any]
Cubins = dict[tuple[int, ...], bytes]  # machine code by compute capability


def to_data(kernel: Any) -> Data:
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


def from_data(data: Data) -> tuple[str, Cubins]:
    """The name of the kernel's function, and its machine code. Raises KeyError, TypeError or ValueError for other data
    than that of `to_data`."""
    entry = data["entry"]
    if not isinstance(entry, str):
        raise TypeError(f"entry is {entry!r}; expected a name")
    return entry, {
        tuple(cubin["capability"]): base64.b64decode(cubin["code"], validate=True) for cubin in data["cubins"]
    }
