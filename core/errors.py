"""Every error this project raises on purpose, apart from bad arguments (ValueError, TypeError).

PoseError
├── SourceError (OSError)        a video, camera, image or folder that cannot be read
│   └── PartsFailed              of several files some could not be read to their end; the others were
├── SinkError (OSError)          an output that cannot be written
├── ModelError (ValueError)      a checkpoint or ONNX file that is damaged, foreign or unfit
├── DownloadError (OSError)      weights that could not be fetched or verified
├── EngineError (RuntimeError)   a runtime that is missing, or a plan that cannot be built or run
│   └── EngineMismatch           a plan built by another TensorRT, for another GPU, shape or model
└── StageError (RuntimeError)    a stage failed on a frame; the cause is chained

A message is one line: what, got, expected, remedy. Every folder may import this file, which imports only the standard
library and `core.signals`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from core.signals import interrupt_behind


class PoseError(Exception):
    """Base of the errors below; its text can be shown to a user unchanged."""


class SourceError(PoseError, OSError):
    """A source cannot be opened or read."""


class PartsFailed(SourceError):
    """Of several files some could not be read to their end. Raised after all the others were read."""


class SinkError(PoseError, OSError):
    """An output cannot be opened or written."""


class ModelError(PoseError, ValueError):
    """A checkpoint or ONNX file is damaged, foreign or does not fit the model."""


class DownloadError(PoseError, OSError):
    """Weights could not be downloaded, or their hash is wrong."""


class EngineError(PoseError, RuntimeError):
    """An inference runtime is missing, or a plan could not be built, opened or run."""


class EngineMismatch(EngineError):
    """A plan was built by another version, for another GPU, shape or model than asked for."""


class StageError(PoseError, RuntimeError):
    """A stage of the pipeline failed on one frame; `__cause__` is what it raised."""


def describe(error: BaseException) -> str:
    """One line for a user: the message, with the type's name before it if the message alone is unclear."""
    text = " ".join(str(error).split())
    known = isinstance(error, PoseError | ValueError | OSError)
    return text if known and text else f"{type(error).__name__}: {text}" if text else type(error).__name__


@contextmanager
def as_engine_error(what: str) -> Iterator[None]:
    """Raise a library's error, which is of the library's own type, as EngineError: `what`, then one line of it.

    PoseErrors leave the block as they are, and so does what a signal caused.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, PoseError) or interrupt_behind(error) is not None:
            raise
        raise EngineError(f"{what}: {describe(error)}") from error
