"""VideoSource: timestamps, rotation, damaged files, and addresses that do not answer."""

from __future__ import annotations

import itertools
import socket
import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from core.errors import SourceError
from pipeline.sources import open_source
from pipeline.sources.truncation import is_cut_short
from pipeline.sources.video import VideoSource
from tests.pipeline.fakes import noise, write_clip


def test_frames_come_with_the_containers_time(tmp_path):
    path = write_clip(tmp_path / "a.mp4", 5, pts=[0, 1, 2, 7, 11], time_base=Fraction(1, 90_000))
    with VideoSource(str(path)) as source:
        assert (source.frame_count, source.frame_wh, source.live) == (5, (64, 48), False)
        frames = list(source)
    assert [frame.index for frame in frames] == [0, 1, 2, 3, 4]
    assert [frame.time_s for frame in frames] == pytest.approx([i / 90_000 for i in (0, 1, 2, 7, 11)], abs=1e-12)
    assert {frame.time_base for frame in frames} == {Fraction(1, 90_000)}
    assert [round(float(frame.image.mean()) / 20) for frame in frames] == [0, 1, 2, 3, 4]
    assert all(frame.image.flags.c_contiguous for frame in frames)


@pytest.mark.parametrize("name", ["a:b.mp4", "ü ä.mp4", "50%d.mp4", "-a.mp4"])
def test_any_file_name(tmp_path, name, monkeypatch):
    write_clip(tmp_path / "plain.mp4", 2).rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    with open_source(name) as source:
        assert [frame.source for frame in source] == [name, name]


def test_time_starts_at_the_first_frame(tmp_path):
    path = write_clip(tmp_path / "a.mkv", 3, pts=[1000, 1040, 1080], time_base=Fraction(1, 1000))
    with VideoSource(str(path)) as source:
        assert [frame.time_s for frame in source] == pytest.approx([0, 0.04, 0.08])


@pytest.mark.parametrize(
    ("rotation", "corner"), [(0, "left top"), (90, "left bottom"), (180, "right bottom"), (270, "right top")]
)
def test_frames_are_upright(tmp_path, rotation, corner):
    """The picture is bright in the upper left; after a rotation this corner is elsewhere."""

    def picture(i: int) -> np.ndarray:
        image = np.zeros((48, 64, 3), np.uint8)
        image[:20, :20] = 255
        return image

    path = write_clip(tmp_path / "a.mp4", 2, rotation=rotation, picture=picture)
    with VideoSource(str(path)) as source:
        image = next(iter(source)).image
        assert source.frame_wh == (image.shape[1], image.shape[0])  # what engines are made ready for
    assert image.shape == ((64, 48, 3) if rotation in (90, 270) else (48, 64, 3))
    half_h, half_w = image.shape[0] // 2, image.shape[1] // 2
    brightness = {
        "left top": image[:half_h, :half_w].mean(),
        "right top": image[:half_h, half_w:].mean(),
        "left bottom": image[half_h:, :half_w].mean(),
        "right bottom": image[half_h:, half_w:].mean(),
    }
    assert max(brightness, key=lambda name: brightness[name]) == corner


@pytest.mark.parametrize(
    ("matrix", "shown"),
    [
        ((-1, 0, 0, 1), lambda stored: stored[:, ::-1]),
        ((1, 0, 0, -1), lambda stored: stored[::-1]),
        ((0, 1, 1, 0), lambda stored: stored.transpose(1, 0, 2)),
        ((0, -1, -1, 0), lambda stored: stored[::-1, ::-1].transpose(1, 0, 2)),
        ((-1, 0, 0, -1), lambda stored: stored[::-1, ::-1]),
        ((0, 1, -1, 0), lambda stored: np.rot90(stored, -1)),  # 90 degrees clockwise, as of a telephone held upright
    ],
)
def test_mirrored_frames_are_shown_as_players_show_them(tmp_path, matrix, shown):
    with VideoSource(str(write_clip(tmp_path / "plain.mp4", 1, picture=noise))) as source:
        stored = next(iter(source)).image
    with VideoSource(str(write_clip(tmp_path / "a.mp4", 1, picture=noise, matrix=matrix))) as source:
        image = next(iter(source)).image
        assert source.frame_wh == (image.shape[1], image.shape[0])
    np.testing.assert_array_equal(image, shown(stored))
    assert image.flags.c_contiguous


def test_a_gif_is_a_video(tmp_path):
    path = write_clip(tmp_path / "a.gif", 4, codec="gif")
    with VideoSource(str(path)) as source:
        assert [frame.time_s for frame in source] == pytest.approx([0, 0.1, 0.2, 0.3])


FRAGMENTED = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}


@pytest.mark.parametrize(
    ("name", "options"),
    [("a.mp4", {"movflags": "faststart"}), ("f.mp4", FRAGMENTED), ("a.mkv", {}), ("a.avi", {}), ("a.mov", FRAGMENTED)],
)
def test_a_video_cut_in_the_middle_gives_what_it_has_and_then_says_so(tmp_path, name, options):
    whole = write_clip(tmp_path / name, 30, picture=noise, options=options)
    assert not is_cut_short(whole)
    content = whole.read_bytes()
    cut = tmp_path / f"cut-{name}"
    cut.write_bytes(content[: len(content) * 6 // 10])
    seen: list[int] = []
    with VideoSource(str(cut)) as source, pytest.raises(SourceError) as caught:
        seen.extend(frame.index for frame in source)
    assert 12 <= len(seen) <= 20
    assert str(caught.value) == f"{cut} is cut short: it ends after frame {len(seen) - 1}"


@pytest.mark.parametrize("trailer", [b"Ins360 camera", b"\x00\x00\xff\x00data of the camera", bytes(40)])
def test_bytes_that_a_camera_appends_are_no_cut(tmp_path, trailer):
    path = write_clip(tmp_path / "a.mp4", 3)
    path.write_bytes(path.read_bytes() + trailer)
    assert not is_cut_short(path)


def test_a_gif_without_its_end_is_cut_short(tmp_path):
    content = write_clip(tmp_path / "a.gif", 6, codec="gif", picture=noise).read_bytes()
    cut = tmp_path / "cut.gif"
    cut.write_bytes(content[: len(content) // 2])
    assert not is_cut_short(tmp_path / "a.gif")
    with VideoSource(str(cut)) as source, pytest.raises(SourceError, match="is cut short"):
        list(source)


@pytest.mark.parametrize("header", [b"", b"RIFF", b"\x1a\x45\xdf\xa3", b"\x00\x00\x00\x00ftyp", b"GIF89a"])
def test_looking_for_a_cut_takes_any_file(tmp_path, header):
    path = tmp_path / "odd"
    path.write_bytes(header)
    assert is_cut_short(path) in (True, False)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"hello, this is text\n" * 200, "not a video that FFmpeg knows"),
        (bytes(range(256)) * 400, "not a video that FFmpeg knows"),
        (b"\x00\x00\x00\x18ftypisom\x00\x00\x02\x00isomiso2" + b"\x7f" * 5000, "cannot be opened"),
    ],
)
def test_a_file_that_is_no_video_is_refused(tmp_path, content, words, capfd):
    path = tmp_path / "a.mp4"
    path.write_bytes(content)
    with pytest.raises(SourceError, match=words):
        open_source(path)
    assert capfd.readouterr().err == ""


def test_a_header_without_one_readable_frame_says_so(tmp_path):
    content = bytearray(
        write_clip(tmp_path / "a.mp4", 20, picture=noise, options={"movflags": "faststart"}).read_bytes()
    )
    start = content.index(b"mdat") + 4
    content[start:] = bytes(len(content) - start)
    (tmp_path / "b.mp4").write_bytes(content)
    with open_source(tmp_path / "b.mp4") as source, pytest.raises(SourceError, match="holds no frame"):
        list(source)


def test_a_text_file_is_not_drawn_as_a_video(tmp_path):
    (tmp_path / "notes.txt").write_text("hello\n" * 100)
    with pytest.raises(SourceError, match="holds no video"):
        open_source(tmp_path / "notes.txt")


@pytest.fixture
def silent_server() -> Iterator[int]:
    """The port of a server that accepts connections and never answers."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        kept: list[socket.socket] = []

        def accept() -> None:
            try:
                while True:
                    kept.append(server.accept()[0])
            except OSError:
                return

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join(5)
        for connection in kept:
            connection.close()


@pytest.mark.parametrize("scheme", ["rtsp", "http"])
def test_an_address_that_never_answers_is_given_up(silent_server, scheme):
    started = time.monotonic()
    with pytest.raises(SourceError, match=r"did not answer within 0\.3 s"):
        VideoSource(f"{scheme}://127.0.0.1:{silent_server}/stream", open_timeout_s=0.3)
    assert time.monotonic() - started < 3


def test_a_refused_connection_is_reported_at_once():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(SourceError, match="refused"):
        open_source(f"rtsp://127.0.0.1:{port}/stream")


def test_a_password_is_not_shown():
    with pytest.raises(SourceError) as caught:
        VideoSource("rtsp://me:secret@127.0.0.1:1/a", open_timeout_s=1)
    assert "secret" not in str(caught.value)


def test_an_http_video_waits_like_a_file(tmp_path):
    import functools
    from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

    write_clip(tmp_path / "a.mp4", 4, options={"movflags": "faststart"})
    write_clip(tmp_path / "portrait.mp4", 4, rotation=90, options={"movflags": "faststart"})
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(tmp_path))) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        with open_source(f"http://127.0.0.1:{server.server_port}/a.mp4") as source:
            assert not source.live
            assert len(list(source)) == 4
        with open_source(f"http://127.0.0.1:{server.server_port}/portrait.mp4") as source:
            assert source.frame_wh == next(iter(source)).wh == (48, 64)  # known before a frame is read
        server.shutdown()
        thread.join(5)


def test_the_file_is_let_go(tmp_path):
    path = write_clip(tmp_path / "a.mp4", 3)
    source = VideoSource(str(path))
    next(iter(source))
    source.close()
    source.close()
    opened = (
        {Path(link).resolve() for link in Path("/proc/self/fd").glob("*")} if Path("/proc/self/fd").exists() else {}
    )
    assert path not in opened


def test_a_stream_whose_sender_stops_says_so(tmp_path):
    """With UDP no connection is closed; packets just stop."""
    clip = write_clip(tmp_path / "a.ts", 20)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    stop = threading.Event()

    def send() -> None:
        content = clip.read_bytes()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for at in itertools.cycle(range(0, len(content), 188)):
                if stop.wait(0.002):
                    return
                sender.sendto(content[at : at + 188], ("127.0.0.1", port))

    thread = threading.Thread(target=send)
    thread.start()
    try:
        source = VideoSource(f"udp://127.0.0.1:{port}", open_timeout_s=10, read_timeout_s=0.5)
    finally:
        stop.set()
        thread.join()
    with (
        source,
        pytest.raises(SourceError, match=rf"udp://127\.0\.0\.1:{port} sent nothing for 0\.5 s, after \d+ frames"),
    ):
        list(source)
