"""The ModelSpec inside an ONNX file, read without any ONNX library and without reading the weights."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from core.errors import ModelError
from core.spec import METADATA_KEY, ModelSpec

# Protocol Buffers: field number and wire type; onnx.proto's ModelProto and StringStringEntryProto.
METADATA_PROPS, KEY, VALUE = 14, 1, 2
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
FIXED = {FIXED64: 8, FIXED32: 4}
LARGEST_ENTRY = 1 << 20  # a metadata entry is a line of JSON


def read_spec(path: str | Path) -> ModelSpec:
    """The spec in an ONNX file. Raises ModelError for a missing, truncated or foreign file, or one that is not ONNX."""
    path = Path(path)
    try:
        with path.open("rb") as file:
            properties = dict(_properties(file))
    except OSError as error:
        raise ModelError(f"{path} cannot be opened: {error.strerror or error}; expected an ONNX file") from error
    except ValueError as error:
        raise ModelError(f"{path} is not a whole ONNX file ({error}); export or download it again") from error
    if METADATA_KEY not in properties:
        raise ModelError(f"{path} has no {METADATA_KEY} in its metadata; expected a file made by python -m export")
    try:
        return ModelSpec.from_json(properties[METADATA_KEY])
    except ValueError as error:
        raise ModelError(f"{path}: {error}") from error


def sha256_of(path: Path) -> str:
    """Hex digits of a file's hash. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _properties(file: BinaryIO) -> Iterator[tuple[str, str]]:
    """(key, value) of every metadata property. Raises ValueError if the bytes are not a Protocol Buffers message."""
    end = file.seek(0, os.SEEK_END)
    file.seek(0)
    if end == 0:
        raise ValueError("it is empty")
    for field, length in _fields(file, end):
        if field != METADATA_PROPS or length is None:
            continue
        if length > LARGEST_ENTRY:
            raise ValueError(f"a metadata entry of {length} bytes")
        entry_end = file.tell() + length
        texts = {KEY: "", VALUE: ""}
        for part, part_length in _fields(file, entry_end):
            if part in texts and part_length is not None:
                texts[part] = file.read(part_length).decode()
        yield texts[KEY], texts[VALUE]


def _fields(file: BinaryIO, end: int) -> Iterator[tuple[int, int | None]]:
    """(field number, length) of a message's fields up to `end`; each time, the file is positioned at the field's bytes.

    Length is None for numbers. The caller may read the bytes or skip them: the next field is found in both cases.
    """
    while (position := file.tell()) < end:
        tag = _varint(file)
        field, wire = tag >> 3, tag & 7
        length = None
        if wire == VARINT:
            _varint(file)
        elif wire in FIXED:
            file.seek(FIXED[wire], os.SEEK_CUR)
        elif wire == BYTES:
            length = _varint(file)
        else:
            raise ValueError(f"byte {position} begins no field")
        after = file.tell() + (length or 0)
        if after > end or field == 0:
            raise ValueError(f"it ends at byte {end}, inside a field that began at {position}")
        yield field, length
        file.seek(after)


def _varint(file: BinaryIO) -> int:
    value = 0
    for shift in range(0, 64, 7):
        byte = file.read(1)
        if not byte:
            break
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    raise ValueError(f"no number ends at byte {file.tell()}")
