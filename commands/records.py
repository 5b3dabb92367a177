"""Keys of results, known before the work: the source's version, the model's files and the options determine them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from core.errors import ModelError
from export import zoo
from pipeline.model_files import check_model

Option = str | int | float | bool | None | list[int]

SIDECAR = ".json"  # beside a plan
DIGEST_CHARACTERS = 16  # 64 bits: with 100,000 files, a collision has a probability of about 10^-9


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:DIGEST_CHARACTERS]


def result_key(path: str, size_bytes: int, version: str, *, model_digest: str, options: Mapping[str, Option]) -> str:
    """The key of a result. Equal keys mean the same file, model and options, so the result need not be made again.

    version: changes when the file does. options: by name; "model" is ignored, since the digest identifies it better.
    """
    chosen = {name: value for name, value in options.items() if name != "model"}
    return digest(json.dumps([path, size_bytes, version, model_digest, chosen], sort_keys=True))


def digest_of(model: str) -> str:
    """The digest of a model: the published one of a named model, else that of the bytes of its files.

    Raises ModelError or ValueError, as run_video.py does, for a missing file or an unknown name.
    """
    check_model(model)
    if model in zoo.MODELS and zoo.MODELS[model].url is not None:
        return zoo.MODELS[model].sha256
    total = hashlib.sha256()
    for path in model_files(model):
        with path.open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()[:DIGEST_CHARACTERS]


def model_files(model: str) -> list[Path]:
    """The files of a model on this disk. Raises ModelError if a bundled one is missing."""
    if model in zoo.MODELS:
        found = sorted(zoo.MODELS_FOLDER.glob(f"{Path(zoo.MODELS[model].file).stem}*.onnx"))
    else:
        path = Path(model)
        found = [one for one in (path, path.with_name(path.name + SIDECAR)) if one.is_file()]
    if not found:
        raise ModelError(f"model {model} has no file here; restore it from the repository")
    return found
