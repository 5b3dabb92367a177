"""The one way to onnxruntime: without its telemetry. Standard library only until it is called."""

from __future__ import annotations

import os
from typing import Any

from core.errors import EngineError


def load_onnxruntime() -> Any:
    """The module. From 1.29 on it reports models and sessions to its makers over HTTPS unless told not to before it is
    first imported; pictures of people are nobody's business. A user who sets ORT_DISABLE_TELEMETRY=0 has the last word.

    Raises EngineError if it is not installed. Source: onnxruntime's Privacy.md, "Disabling Telemetry".
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnxruntime
    except ImportError as error:
        raise EngineError(f"onnxruntime cannot be loaded ({error}); pip install onnxruntime") from error
    return onnxruntime
