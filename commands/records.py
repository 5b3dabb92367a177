"""What makes two results equal before they are made: the source's version, the model's files, the options."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from core.errors import ModelError
from export import zoo
from pipeline.models import check_model

Option = str | int | float | bool | None | list[int]

SIDECAR = ".json"  # beside a plan
DIGEST_CHARACTERS = 16  # 64 bits: 100,000 files meet by chance once in 10^9 runs


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:DIGEST_CHARACTERS]


def result_key(path: str, size_bytes: int, version: str, *, model_digest: str, options: Mapping[str, Option]) -> str:
    """Equal where the same file would be treated in the same way: then its results need not be made again.

    version: changes when the file does. options: by name; "model" is left out, since the digest says it better.
    """
    chosen = {name: value for name, value in options.items() if name != "model"}
    return digest(json.dumps([path, size_bytes, version, model_digest, chosen], sort_keys=True))


def digest_of(model: str) -> str:
    """Of what is run: a named model's published digest, or of the bytes of its files.

    Raises ModelError or ValueError as run_video.py would: for a file that is missing or a name that is unknown.
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
    """What a model that is here consists of. Raises ModelError if a bundled one is gone."""
    if model in zoo.MODELS:
        found = sorted(zoo.MODELS_FOLDER.glob(f"{Path(zoo.MODELS[model].file).stem}*.onnx"))
    else:
        path = Path(model)
        found = [one for one in (path, path.with_name(path.name + SIDECAR)) if one.is_file()]
    if not found:
        raise ModelError(f"model {model} has no file here; restore it from the repository")
    return found
