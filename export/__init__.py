"""PyTorch -> ONNX: the network, its checkpoints, the named models. FP16 is decided here.

The names below need the standard library only; `export.model`, `export.checkpoint` and `export.to_onnx` need torch.
"""

from export.zoo import MODELS, ZooModel, locate

__all__ = ["MODELS", "ZooModel", "locate"]
