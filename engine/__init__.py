"""ONNX -> plan -> arrays. Knows tensors, not people."""

from engine.errors import EngineError, EngineMismatch, PoseError
from engine.spec import ModelSpec

__all__ = ["EngineError", "EngineMismatch", "ModelSpec", "PoseError"]
