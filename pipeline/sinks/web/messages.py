"""The messages of the WebSocket: packs those to viewers, parses and checks those from viewers.

Server to viewer, text: hello, status, pong, camera, taken, end. Binary: one frame of one source,
    4 bytes: length n of the header (big-endian), n bytes: header (JSON, UTF-8), the rest: the picture (JPEG).
Viewer to server, text: ack, ping, camera, camera_off. Binary: a frame of the visitor's camera, in the same format.
Times are milliseconds of the server's monotonic clock; from `ping` and `pong` the page computes its clock's offset.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pipeline.types import People

IN_FLIGHT = 2  # unacknowledged frames per source, viewer and direction: one is shown while the next is transferred
MAX_TEXT_BYTES = 1024
MAX_PICTURE_BYTES = 2 << 20  # of a visitor's camera; a picture of 1280 x 720 has about 150 KB
MAX_PIXELS = 1920 * 1088  # of a visitor's picture: a header of a few bytes can declare 65535 x 65535
LENGTH_BYTES = 4
XY_UNITS, SCORE_UNITS = np.float32(10), np.float32(1000)  # units per pixel; units per score of 1
MAX_NUMBER = 2**53


class ProtocolError(ValueError):
    """A viewer sent an invalid message; the connection is closed with this reason."""


@dataclass(frozen=True)
class Ack:
    """The viewer has decoded frame `seq` of the source and can take another."""

    source: int
    seq: int


@dataclass(frozen=True)
class Ping:
    sent_ms: float  # by the viewer's clock; returned unchanged


@dataclass(frozen=True)
class CameraRequest:
    """The visitor starts or stops their camera as the source `browser`."""

    on: bool


@dataclass(frozen=True)
class CameraPicture:
    """captured_ms: by the server's clock as the page estimates it, or None."""

    captured_ms: float | None
    jpeg: bytes


def pack_text(kind: str, **fields: object) -> str:
    return json.dumps({"type": kind, **fields}, separators=(",", ":"))


def pack_frame(header: Mapping[str, object], jpeg: bytes) -> bytes:
    text = json.dumps(header, separators=(",", ":"), allow_nan=False).encode()
    return b"".join((len(text).to_bytes(LENGTH_BYTES, "big"), text, jpeg))


def people_fields(people: People) -> list[dict[str, object]]:
    """For each person: id if there is one, score, and keypoints as a flat list of x, y, score per joint. Values are
    integers, tenths of a pixel and thousandths of a score, since JSON encodes them in a third of the time of floats."""
    count, joints = people.keypoint_scores.shape
    triples = np.empty((count, joints, 3), np.float32)
    np.multiply(people.keypoints, XY_UNITS, out=triples[..., :2])
    np.multiply(people.keypoint_scores, SCORE_UNITS, out=triples[..., 2])
    keypoints = np.rint(triples).astype(np.int32).reshape(count, 3 * joints).tolist()
    scores = np.rint(people.scores * SCORE_UNITS).astype(np.int32).tolist()
    fields: list[dict[str, object]] = []
    for p, number in enumerate(people.ids.tolist()):
        id_field: dict[str, object] = {"id": number} if number else {}
        fields.append(id_field | {"score": scores[p], "keypoints": keypoints[p]})
    return fields


def parse_text(text: str) -> Ack | Ping | CameraRequest:
    """Raises ProtocolError."""
    if len(text) > MAX_TEXT_BYTES:
        raise ProtocolError(f"a text of {len(text)} characters; at most {MAX_TEXT_BYTES}")
    message = _object(text)
    match message.get("type"):
        case "ack":
            return Ack(_whole(message, "source"), _whole(message, "seq"))
        case "ping":
            return Ping(_number(message, "sent"))
        case "camera":
            return CameraRequest(on=True)
        case "camera_off":
            return CameraRequest(on=False)
    raise ProtocolError("a message of unknown type")


def parse_picture(message: bytes) -> CameraPicture:
    """A frame of the visitor's camera. Its size is read from the JPEG's header, without decoding.

    Raises ProtocolError.
    """
    length = int.from_bytes(message[:LENGTH_BYTES], "big")
    start = LENGTH_BYTES + length
    if len(message) < LENGTH_BYTES or length > MAX_TEXT_BYTES or len(message) <= start:
        raise ProtocolError("a picture message without a header and a picture")
    try:
        header = _object(message[LENGTH_BYTES:start].decode())
    except UnicodeDecodeError as error:
        raise ProtocolError("a header that is no UTF-8") from error
    captured_ms = _number(header, "captured_ms") if header.get("captured_ms") is not None else None
    jpeg = message[start:]
    if len(jpeg) > MAX_PICTURE_BYTES:
        raise ProtocolError(f"a picture of {len(jpeg)} bytes; at most {MAX_PICTURE_BYTES}")
    width, height = jpeg_size(jpeg)
    if not 0 < width * height <= MAX_PIXELS:
        raise ProtocolError(f"a picture of {width} x {height} pixels; at most {MAX_PIXELS}")
    return CameraPicture(captured_ms, jpeg)


def jpeg_size(jpeg: bytes) -> tuple[int, int]:
    """(width, height) from the frame header. Raises ProtocolError if there is none.

    Source: ITU-T T.81, B.1.1 and B.2.2: segments of marker, length and content; SOFn holds precision, height, width.
    """
    if jpeg[:2] != b"\xff\xd8":
        raise ProtocolError("a picture that is no JPEG")
    at = 2
    while at + 9 <= len(jpeg):
        if jpeg[at] != 0xFF:
            break
        marker = jpeg[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # tables and extensions share the range
            return int.from_bytes(jpeg[at + 7 : at + 9], "big"), int.from_bytes(jpeg[at + 5 : at + 7], "big")
        if marker in (0xD9, 0xDA):  # end, or pixels before any frame header
            break
        at += 2 + max(2, int.from_bytes(jpeg[at + 2 : at + 4], "big"))
    raise ProtocolError("a JPEG without a size")


def _object(text: str) -> dict[str, object]:
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ProtocolError("a text that is no JSON") from error
    if not isinstance(value, dict):
        raise ProtocolError("a text that is no JSON object")
    return value


def _number(message: Mapping[str, object], name: str) -> float:
    value = message.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ProtocolError(f"a message whose {name} is no number")
    if not abs(value) <= MAX_NUMBER:  # before float(): an integer may be too large for one; NaN is not, either
        raise ProtocolError(f"a message whose {name} is out of range")
    return float(value)


def _whole(message: Mapping[str, object], name: str) -> int:
    value = _number(message, name)
    if value != int(value) or value < 0:
        raise ProtocolError(f"a message whose {name} is no whole number from 0")
    return int(value)
