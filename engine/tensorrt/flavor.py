"""Which TensorRT: `tensorrt` (10.x, 11.x) or `tensorrt-rtx`. Their modules have one API and are loaded here only."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import logging
from typing import Any, Literal

from core.errors import EngineError
from engine.gpu import find_gpu

logger = logging.getLogger(__name__)

TrtObject = Any  # TensorRT's module or what it makes: the same names in every flavour, without stubs
Flavor = Literal["tensorrt", "tensorrt-rtx"]
MODULES: dict[Flavor, str] = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}

# TensorRT-RTX supports these (its ComputeCapability names); TensorRT, several GB, runs on every recent GPU.
RTX_CAPABILITIES = {(7, 5), (8, 6), (8, 9), (12, 0), (12, 1)}

PORTABLE = "portable"  # a TensorRT-RTX plan: compiled for the GPU where it runs
PORTABLE_FROM = (8, 0)  # lowest compute capability (Ampere) that runs a portable plan


def load_tensorrt(flavor: Flavor) -> TrtObject:
    """The flavour's module. Raises ValueError for another name, EngineError if it is not installed or broken."""
    if flavor not in MODULES:
        raise ValueError(f"flavor is {flavor!r}; expected {' or '.join(MODULES)}")
    try:
        return importlib.import_module(MODULES[flavor])
    except ImportError as error:  # also raised where one of its libraries is missing
        raise EngineError(f"{flavor} cannot be loaded ({error}); pip install {flavor}") from error


def pick_flavor() -> Flavor:
    """tensorrt if it is installed and there is a GPU to build for, else tensorrt-rtx, which builds without a GPU."""
    if importlib.util.find_spec(MODULES["tensorrt"]) is not None and find_gpu()[0] is not None:
        return "tensorrt"
    return "tensorrt-rtx"


def build_target(flavor: Flavor, index: int = 0) -> tuple[str, str]:
    """Name and compute capability of the GPU that a plan built now is for. Name "portable": any GPU of that capability.

    ("portable", "portable") is a TensorRT-RTX plan for any GPU from PORTABLE_FROM on. A plan for an older GPU names
    that GPU and is built on a machine that has it. index: of the GPU, as in find_gpu. Raises EngineError if the
    flavour needs a GPU and there is none.
    """
    gpu, why = find_gpu(index)
    if flavor == "tensorrt-rtx":
        capability = PORTABLE_FROM if gpu is None else gpu.compute_capability
        named = capability < PORTABLE_FROM and capability in RTX_CAPABILITIES
        return PORTABLE, ".".join(map(str, capability)) if named else PORTABLE
    if gpu is None:
        raise EngineError(f"tensorrt builds on the GPU that will run the plan: {why}; or use tensorrt-rtx")
    return gpu.name, gpu.capability


@functools.cache
def make_log(trt: TrtObject) -> TrtObject:
    """The process's only trt.ILogger for a flavour's module, since TensorRT warns if it gets a second logger.

    It forwards messages to logging, and keeps the last error since `forget`.
    """

    class Log(trt.ILogger):  # type: ignore[misc]  # its base is known at run time only
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self._error: str | None = None
            # The highest severity of TensorRT for each level of logging; other severities are omitted.
            self._levels = {
                trt.ILogger.Severity.INTERNAL_ERROR: logging.WARNING,
                trt.ILogger.Severity.ERROR: logging.WARNING,
                trt.ILogger.Severity.WARNING: logging.INFO,
                trt.ILogger.Severity.INFO: logging.DEBUG,
            }

        def log(self, severity: TrtObject, message: str) -> None:
            level = self._levels.get(severity)
            if level is None:
                return
            if level == logging.WARNING:
                self._error = " ".join(message.split())
                level = logging.INFO  # the code that detects the failure raises it: no need to report it twice
            logger.log(level, "TensorRT: %s", message)

        def forget(self) -> None:
            """Clear the last error before a new operation, so that an earlier error is not given as its cause."""
            self._error = None

        def last_error(self) -> str:
            return self._error or "TensorRT gave no reason"

    return Log()
