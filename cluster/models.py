"""Copies a model file of this machine to machines that do not have it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from commands.records import model_files
from core.files import cache_folder, write_whole
from export import zoo


def pack_model(model: str) -> dict[str, bytes]:
    """The contents of a model's files by name; empty for the name of a model, which every checkout knows."""
    return {} if model in zoo.MODELS else {path.name: path.read_bytes() for path in model_files(model)}


def unpack_model(model: str, files: Mapping[str, bytes], digest: str) -> str:
    """What to open on this machine: the model's name, or the path of a copy in the cache."""
    if not files:
        return model
    folder = cache_folder("cluster") / digest
    for name, content in files.items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != len(content):
            write_whole(path, content)
    return str(folder / Path(model).name)
