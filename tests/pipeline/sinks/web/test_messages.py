from __future__ import annotations

import json
from contextlib import suppress

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.sinks.web.messages import (
    MAX_PICTURE_BYTES,
    Ack,
    CameraRequest,
    Ping,
    ProtocolError,
    jpeg_size,
    pack_frame,
    pack_text,
    parse_picture,
    parse_text,
    people_fields,
)
from pipeline.types import People


def picture(width: int = 32, height: int = 24) -> bytes:
    return cv2.imencode(".jpg", np.zeros((height, width, 3), np.uint8))[1].tobytes()


def test_the_viewers_messages_are_read():
    assert parse_text('{"type":"ack","source":2,"seq":7}') == Ack(2, 7)
    assert parse_text('{"type":"ping","sent":12.5}') == Ping(12.5)
    assert parse_text('{"type":"camera"}') == CameraRequest(on=True)
    assert parse_text('{"type":"camera_off"}') == CameraRequest(on=False)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "[]",
        "7",
        "{}",
        '{"type":"frame"}',
        '{"type":"ack"}',
        '{"type":"ack","source":-1,"seq":1}',
        '{"type":"ack","source":0.5,"seq":1}',
        '{"type":"ack","source":true,"seq":1}',
        '{"type":"ack","source":"0","seq":1}',
        '{"type":"ping","sent":NaN}',
        '{"type":"ping","sent":Infinity}',
        '{"type":"ping","sent":1' + "0" * 400 + "}",
        "[" * 900,
        '{"type":"ping","sent":1,"x":"' + "a" * 2000 + '"}',
    ],
)
def test_malformed_texts_are_refused(text):
    with pytest.raises(ProtocolError):
        parse_text(text)


@given(
    st.text(max_size=60) | st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists).map(json.dumps)
)
def test_no_text_does_more_than_be_refused(text):
    with suppress(ProtocolError):
        parse_text(text)


@given(st.binary(max_size=80), st.booleans())
def test_no_bytes_do_more_than_be_refused(content, with_header):
    message = pack_frame({}, b"\xff\xd8" + content) if with_header else content
    with suppress(ProtocolError):
        parse_picture(message)


@pytest.mark.parametrize("wh", [(1, 1), (33, 17), (1920, 1080)])
def test_a_pictures_size_is_read_without_decoding_it(wh):
    assert jpeg_size(picture(*wh)) == wh
    progressive = cv2.imencode(".jpg", np.zeros((wh[1], wh[0], 3), np.uint8), [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1]
    assert jpeg_size(progressive.tobytes()) == wh


def test_a_picture_comes_with_when_it_was_taken():
    taken = parse_picture(pack_frame({"captured_ms": 5.5}, picture()))
    assert (taken.captured_ms, taken.jpeg) == (5.5, picture())
    assert parse_picture(pack_frame({"captured_ms": None}, picture())).captured_ms is None


def swollen(width: int, height: int) -> bytes:
    """A small JPEG that says it is a large one."""
    jpeg = bytearray(picture())
    at = jpeg.index(b"\xff\xc0") + 5
    jpeg[at : at + 4] = height.to_bytes(2, "big") + width.to_bytes(2, "big")
    return bytes(jpeg)


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\0\0",
        b"\0\0\0\2{}",
        b"\xff\xff\xff\xff{}",
        b"\0\0\0\2\xff\xfe" + picture(),
        pack_frame({}, b"PNG"),
        pack_frame({}, b"\xff\xd8\xff\xd9" + b"\0" * 20),
        pack_frame({"captured_ms": "now"}, picture()),
        pack_frame({"x": "a" * 2000}, picture()),
        pack_frame({}, swollen(65535, 65535)),
        pack_frame({}, swollen(0, 100)),
        pack_frame({}, picture() + b"\0" * MAX_PICTURE_BYTES),
    ],
)
def test_malformed_pictures_are_refused(message):
    with pytest.raises(ProtocolError):
        parse_picture(message)


def test_a_frame_is_its_header_and_its_jpeg():
    message = pack_frame({"seq": 3}, b"jpeg")
    length = int.from_bytes(message[:4], "big")
    assert json.loads(message[4 : 4 + length]) == {"seq": 3}
    assert message[4 + length :] == b"jpeg"
    assert json.loads(pack_text("pong", sent=1)) == {"type": "pong", "sent": 1}


def test_people_are_whole_numbers_in_known_units():
    keypoints = np.array([[[1.26, 2.0], [11.24, 22.0], [0.0, 0.0]]], np.float32)
    scores = np.array([[0.91239, 0.5, 0.0]], np.float32)
    (person,) = people_fields(People(keypoints, scores, np.array([0.8], np.float32)))
    assert person == {"score": 800, "keypoints": [13, 20, 912, 112, 220, 500, 0, 0, 0]}
    assert people_fields(People(keypoints, scores, np.ones(1, np.float32), np.array([7])))[0]["id"] == 7
    assert people_fields(People.nobody()) == []
