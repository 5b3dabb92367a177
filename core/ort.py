"""Loads onnxruntime, for all folders, without its telemetry. Imports only the standard library until called."""

from __future__ import annotations

import os
from types import ModuleType

from core.errors import EngineError


def load_onnxruntime() -> ModuleType:
    """The module, with telemetry disabled to protect the people in the images. From 1.29 on it reports models and
    sessions to its makers over HTTPS unless disabled before its first import. ORT_DISABLE_TELEMETRY=0 is respected.

    Raises EngineError if it is not installed. Source: onnxruntime's Privacy.md, "Disabling Telemetry".
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnxruntime
    except ImportError as error:
        raise EngineError(f"onnxruntime cannot be loaded ({error}); pip install onnxruntime") from error
    module: ModuleType = onnxruntime
    return module
