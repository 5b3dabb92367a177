"""Sources on web servers: cameras are live, films are files."""

from __future__ import annotations

import itertools
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from pipeline.sources import open_source
from pipeline.sources.opening import Chain
from pipeline.sources.reconnect import Reconnecting
from pipeline.sources.several import Several
from tests.pipeline.fakes import write_clip

PART = b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n"


@pytest.fixture(autouse=True)
def _no_thread_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


@contextmanager
def serving(handler: Any) -> Iterator[str]:
    """The address of a server that is stopped, with its connections, at the end."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = False  # joined when the server closes
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join(5)


class Cameras(BaseHTTPRequestHandler):
    """MJPEG: at /short ten pictures, elsewhere until the client leaves; at /film `film` from the second client on.

    clients: how many each path has had.
    """

    clients: dict[str, int]
    film: bytes

    def do_GET(self) -> None:
        self.clients[self.path] = self.clients.get(self.path, 0) + 1
        if self.path == "/film" and self.clients[self.path] > 1:
            self.send_response(200)
            self.send_header("Content-Length", str(len(self.film)))
            self.end_headers()
            self.wfile.write(self.film)
            return
        picture = cv2.imencode(".jpg", np.full((48, 64, 3), 100, np.uint8))[1].tobytes()
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        left = threading.Event()
        for _ in range(10 if self.path in {"/short", "/film"} else 1000):
            try:
                self.wfile.write(PART % len(picture) + picture + b"\r\n")
            except OSError:
                return
            left.wait(0.01)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def cameras() -> Iterator[str]:
    Cameras.clients = {}
    with serving(Cameras) as address:
        yield address


def test_a_camera_is_live_and_opened_once(cameras):
    with open_source(f"{cameras}/a") as source:
        assert source.live
        assert source.is_single_camera
        assert source.frame_count is None
        assert next(iter(source)).wh == source.frame_wh == (64, 48)
    assert Cameras.clients == {"/a": 1}


def test_a_camera_whose_server_ends_is_opened_again(cameras):
    with open_source(f"{cameras}/short", reconnect=True) as source:
        assert isinstance(source, Reconnecting)
        for frame in source:
            if frame.index == 12:
                break
    assert Cameras.clients == {"/short": 2}


def test_a_live_stream_that_has_become_a_recording_is_not_played_again(cameras, tmp_path):
    Cameras.film = write_clip(tmp_path / "a.mp4", 30, options={"movflags": "faststart"}).read_bytes()
    with open_source(f"{cameras}/film", reconnect=True) as source:
        assert isinstance(source, Reconnecting)
        heard: list[str | None] = []

        def hear(reason: str | None) -> None:
            heard.append(reason)
            if len(heard) == 2:
                source.interrupt()

        source.on_change = hear
        assert len(list(source)) == 10
    assert heard[1] == f"{cameras}/film is not live any more: it gives a recording"


def test_a_camera_that_is_not_there_yet_is_waited_for():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with open_source(f"http://127.0.0.1:{port}/a", reconnect=True) as source:
        assert isinstance(source, Reconnecting)


def test_several_cameras_run_at_the_same_time(cameras, tmp_path):
    film = write_clip(tmp_path / "a.mp4", 3)
    with open_source(f"{cameras}/a", f"{cameras}/b", film, realtime=True) as source:
        assert isinstance(source, Several)
        seen: set[str] = set()
        for frame in source:
            seen.add(frame.source)
            if seen == set(source.parts):
                break
    assert Cameras.clients == {"/a": 1, "/b": 1}


@pytest.mark.parametrize(
    ("paths", "options", "words"),
    [
        (["a", "a"], {}, "is given twice"),
        (["a"], {"loop": True}, r"/a is live; omit --loop"),
        (["a", "film"], {}, r"a\.mp4 is a file among live sources"),
    ],
)
def test_what_cannot_run_together_is_refused_and_closed(cameras, tmp_path, paths, options, words):
    film = write_clip(tmp_path / "a.mp4", 3)
    with pytest.raises(ValueError, match=words):
        open_source(*(film if path == "film" else f"{cameras}/{path}" for path in paths), **options)


def test_films_are_files_and_a_playlist_is_live_until_it_has_an_end(tmp_path):
    class Files(SimpleHTTPRequestHandler):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments, directory=str(tmp_path))

        def log_message(self, *arguments: object) -> None:
            pass

    write_clip(tmp_path / "a.mp4", 4, options={"movflags": "faststart"})
    write_clip(tmp_path / "a.h264", 4)  # no duration
    for n in range(3):
        write_clip(tmp_path / f"{n}.ts", 40, pts=list(range(40 * n, 40 * n + 40)))
    playlist = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:4\n#EXT-X-MEDIA-SEQUENCE:0\n"
    playlist += "".join(f"#EXTINF:4.0,\n{n}.ts\n" for n in range(3))
    Path(tmp_path / "live.m3u8").write_text(playlist)
    Path(tmp_path / "ended.m3u8").write_text(playlist + "#EXT-X-ENDLIST\n")
    with serving(Files) as address:
        for name, live in [("a.mp4", False), ("a.h264", False), ("ended.m3u8", False), ("live.m3u8", True)]:
            with open_source(f"{address}/{name}") as source:
                assert source.live == live, name
                assert next(iter(source)).wh == (64, 48)
        with open_source(f"{address}/live.m3u8") as source:  # not as fast as the server sends its pieces
            started = time.monotonic()
            assert [frame.index for frame in itertools.islice(source, 5)] == [0, 1, 2, 3, 4]
            assert time.monotonic() - started >= 0.4
        with open_source(f"{address}/a.mp4", f"{address}/a.h264", reconnect=True) as source:
            assert isinstance(source, Chain)
            assert len(list(source)) == 8
