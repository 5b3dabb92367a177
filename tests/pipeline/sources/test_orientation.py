"""Orientation of frames whose side data PyAV cannot give."""

from __future__ import annotations

import io
import struct

import av
import cv2
import numpy as np
import pytest

from pipeline.sources.orientation import TURNED, Orientation


def jpeg_with_exif(orientation: int) -> bytes:
    entry = struct.pack(">HHIHH", 0x0112, 3, 1, orientation, 0)
    exif = b"Exif\0\0MM\0*" + struct.pack(">IH", 8, 1) + entry + bytes(4)
    plain = cv2.imencode(".jpg", np.zeros((48, 64, 3), np.uint8))[1].tobytes()
    return plain[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + plain[2:]


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_of_a_cameras_jpeg_with_exif_the_rotation_is_used(orientation):
    with av.open(io.BytesIO(jpeg_with_exif(orientation)), "r") as container:
        frame = next(container.decode(video=0))
    assert Orientation.of(frame) == TURNED[round(frame.rotation / 90) % 4]


def test_the_four_rotations():
    image = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    for quarters, orientation in enumerate(TURNED):
        np.testing.assert_array_equal(orientation.applied(image), np.rot90(image, quarters))
