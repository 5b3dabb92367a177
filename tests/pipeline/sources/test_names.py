from __future__ import annotations

import pytest

from pipeline.sources.names import public_name


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("rtsp://host:554/live", "rtsp://host:554/live"),
        ("rtsp://me:secret@host:554/a?b=c@d", "rtsp://host:554/a?b=c@d"),
        ("rtsp://me@host/a", "rtsp://host/a"),
        ("rtsp://me:sec@ret@host/a", "rtsp://host/a"),
        ("RTSP://me:secret@[::1]:554/a", "RTSP://[::1]:554/a"),
        ("rtsp://me:sec/ret@host/a", "rtsp://host/a"),
        ("rtsp://me:sec?ret@host/a", "rtsp://host/a"),
        ("rtsp://host:554/a@b", "rtsp://host:554/a@b"),
        ("http://host/video?user=me&password=secret&size=2", "http://host/video?user=***&password=***&size=2"),
        ("http://host/video?access_token=secret", "http://host/video?access_token=***"),
        (
            "http://host/v?X-Amz-Signature=secret&X-Amz-Credential=me",
            "http://host/v?X-Amz-Signature=***&X-Amz-Credential=***",
        ),
        ("rtsp://host/user=me&password=secret&channel=1", "rtsp://host/user=***&password=***&channel=1"),
        ("rtsp://host/user=me_password=secret_channel=1.sdp", "rtsp://host/user=***"),
        ("http://host/v?usr=me&pwd=secret#t=3", "http://host/v?usr=***&pwd=***"),
        ("http://host/v?step=2&u=me&p=secret", "http://host/v?step=2&u=***&p=***"),
        ("0", "0"),
        ("browser", "browser"),
        ("clips/me:secret@host.mp4", "clips/me:secret@host.mp4"),
        ("a?password=b.mp4", "a?password=b.mp4"),
    ],
)
def test_an_address_is_shown_without_its_credentials(name, shown):
    assert public_name(name) == shown
    assert public_name(shown) == shown
