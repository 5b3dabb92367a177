"""A TensorFlow.js graph model in the format of MoveNet MultiPose, with random weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from torch import nn

from export.movenet import PUBLISHED, PUBLISHED_TOP, MoveNet
from train.warm_start import LAYERS

CONCRETE = ((".*", "P/"), ("separable_[^/]+", "separable_conv2d_6"), ("[^/]+", "separable_conv2d_6"), (r"\d+", "7"))


def write(path: Path, *, without: str = "", half: bool = True) -> Path:
    """The JSON at `path`, its weights in two files, as float16 or float32, but no tensor matching `without`."""
    model = MoveNet(17, PUBLISHED, PUBLISHED_TOP)
    rng = np.random.default_rng(0)
    stored = np.float16 if half else np.float32
    entries = []
    data = b""
    for name, kernel, bias in LAYERS:
        layer = model.get_submodule(name)
        assert isinstance(layer, nn.Conv2d)
        shape = np.array(layer.weight.shape)[[2, 3, 0, 1] if layer.groups > 1 else [2, 3, 1, 0]].tolist()
        scale = np.sqrt(2 / np.prod(layer.weight.shape[1:]))
        tensors = [(kernel, shape, scale)] + ([(bias, [layer.weight.shape[0]], 0.1)] if bias else [])
        for pattern, sides, spread in tensors:
            if without and without in pattern:
                continue
            entry = {"name": concrete(pattern), "shape": sides, "dtype": "float32"}
            entries.append(entry | ({"quantization": {"dtype": "float16"}} if half else {}))
            data += rng.normal(0, spread, sides).astype(stored).tobytes()
    entries.append({"name": "P/shape", "shape": [2], "dtype": "int32"})
    data += np.array([3, 4], np.int32).tobytes()
    half_way = len(data) // 2
    for part, piece in (("1.bin", data[:half_way]), ("2.bin", data[half_way:])):
        (path.parent / part).write_bytes(piece)
    path.write_text(json.dumps({"weightsManifest": [{"paths": ["1.bin", "2.bin"], "weights": entries}]}))
    return path


def concrete(pattern: str) -> str:
    """A name that matches the pattern."""
    for part, text in CONCRETE:
        pattern = pattern.replace(part, text)
    return pattern
