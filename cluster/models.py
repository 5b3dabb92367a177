"""The model's files: what identifies them in records, and how they reach machines that do not have them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from core.errors import ModelError
from core.files import cache_folder, write_whole
from export import zoo
from pipeline.models import check_model

SIDECAR = ".json"  # beside a plan
PREFIX_CHARACTERS = 16


def digest_of(model: str) -> str:
    """Of what is run: a named model's published digest, or of the bytes of its files.

    Raises ModelError or ValueError as run_video.py would: for a file that is missing or a name that is unknown.
    """
    check_model(model)
    if model in zoo.MODELS and zoo.MODELS[model].url is not None:
        return zoo.MODELS[model].sha256
    total = hashlib.sha256()
    for path in _files(model):
        with path.open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()[:PREFIX_CHARACTERS]


def packed(model: str) -> dict[str, bytes]:
    """What another machine needs of a model that is a file here; nothing for a name, which every checkout knows."""
    return {} if model in zoo.MODELS else {path.name: path.read_bytes() for path in _files(model)}


def unpacked(model: str, files: Mapping[str, bytes], digest: str) -> str:
    """The model as this machine can open it: the name, or the path of a copy in the cache."""
    if not files:
        return model
    folder = cache_folder("cluster") / digest
    for name, content in files.items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != len(content):
            write_whole(path, content)
    return str(folder / Path(model).name)


def _files(model: str) -> list[Path]:
    if model in zoo.MODELS:
        found = sorted(zoo.MODELS_FOLDER.glob(f"{Path(zoo.MODELS[model].file).stem}*.onnx"))
    else:
        path = Path(model)
        found = [one for one in (path, path.with_name(path.name + SIDECAR)) if one.is_file()]
    if not found:
        raise ModelError(f"model {model} has no file here; restore it from the repository")
    return found
