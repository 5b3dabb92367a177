"""ONNX -> plan -> arrays. This package handles tensors only, not people."""

from core.errors import EngineError, EngineMismatch, PoseError
from core.spec import ModelSpec

__all__ = ["EngineError", "EngineMismatch", "ModelSpec", "PoseError"]
