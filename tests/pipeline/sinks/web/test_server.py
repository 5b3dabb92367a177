"""The server without a browser: who is let in, who gets what, and that nobody waits for anybody."""

from __future__ import annotations

import http.client
import json
import logging
import re
import socket
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from urllib.parse import urlsplit

import cv2
import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Origin

from core.errors import SinkError
from pipeline.sinks.web import Address, WebSink, tiles
from pipeline.sinks.web.files import FOLDER, page_files
from pipeline.sinks.web.messages import pack_frame
from pipeline.sources.browser import BrowserSource
from pipeline.types import Frame
from tests.pipeline.fakes import person_at
from tests.pipeline.sinks.web.serving import WAIT_S, Seen, eventually, get, page, result, viewer, write

ANYWHERE = Address("0.0.0.0", 0)


def refused(sink: WebSink, **options) -> int:
    """The status with which a socket is refused."""
    with pytest.raises(InvalidStatus) as caught:
        viewer(sink, **options)
    return int(caught.value.response.status_code)


def closed(connection) -> tuple[int, str]:
    """Code and reason with which the server closes, however much it sends before."""
    with pytest.raises(ConnectionClosed) as caught:
        for _ in range(1000):
            connection.recv(timeout=10)
    close = caught.value.rcvd
    assert close is not None
    return close.code, close.reason


# -- the page


def test_the_page_is_at_the_root_and_all_of_it_is_its_own():
    with page() as sink:
        status, text, headers = get(sink)
        assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
        assert headers["Content-Security-Policy"].startswith("default-src 'none'; script-src 'self'")
        assert headers["X-Content-Type-Options"] == "nosniff"
        for name in re.findall(r'(?:src|href)="([^"]+)"', text):
            assert get(sink, f"/{name}")[0] == 200
        assert get(sink, "/nothing")[0] == get(sink, "/../sink.py")[0] == get(sink, "/page/index.html")[0] == 404


def test_no_file_of_the_page_names_another_host():
    for path in FOLDER.iterdir():
        text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        links = re.findall(r"(?:https?:|wss?:)?//[\w.-]+\.\w+", re.sub(r"^\s*//.*$", "", text, flags=re.MULTILINE))
        assert links == [], path.name
        assert f"/{path.name}" in page_files()


def test_other_methods_and_half_requests_do_no_harm(capfd):
    with page() as sink:
        port = urlsplit(sink.url).port
        for request in (
            b"POST / HTTP/1.1\r\nHost: localhost\r\n\r\n",
            b"\x16\x03\x01",
            b"GET / HTTP/1.1\r\n",
            b"GET /" + b"a" * 20_000,
        ):
            with socket.create_connection(("127.0.0.1", port), timeout=5) as half:
                half.sendall(request)
        assert get(sink)[0] == 200
    assert capfd.readouterr() == ("", "")  # no traceback for what strangers do


# -- who is let in


def test_a_wrong_origin_and_a_rebound_host_are_refused():
    with page() as sink:
        port = urlsplit(sink.url).port
        assert refused(sink, origin="http://evil.example") == 403
        assert refused(sink, origin=f"http://localhost:{port}") == 403  # the Host is 127.0.0.1
        assert get(sink, "/", Host="evil.example")[0] == 403
        assert get(sink, "/style.css", Host=f"evil.example:{port}")[0] == 403
        with viewer(sink, origin=f"http://127.0.0.1:{port}") as connection:
            assert Seen(connection).next("hello")["sources"][0]["name"] == "a.mp4"


def test_beyond_loopback_the_page_and_its_socket_ask_for_the_token():
    with page(address=ANYWHERE) as sink:
        query = f"?{urlsplit(sink.url).query}"
        assert len(query) > len("?token=") + 20
        assert get(sink, "/")[0] == get(sink, "/index.html")[0] == get(sink, "/?token=guess")[0] == 403
        assert refused(sink) == refused(sink, query="?token=guess") == 403
        assert get(sink, f"/{query}")[0] == get(sink, "/style.css")[0] == 200
        assert "token is missing or wrong" in get(sink, "/")[1]
        with viewer(sink, query=query) as connection:
            Seen(connection).next("hello")


def test_the_token_reaches_no_log(caplog, capfd):
    caplog.set_level(logging.DEBUG)
    with page(address=ANYWHERE) as sink:
        token = urlsplit(sink.url).query
        get(sink, f"/?{token}")
        with viewer(sink, query=f"?{token}", logger=logging.Logger("client")) as connection:
            Seen(connection).next("hello")
    assert token not in caplog.text + "".join(capfd.readouterr())


def test_credentials_of_an_address_reach_neither_page_nor_log(caplog):
    caplog.set_level(logging.DEBUG)
    source = "rtsp://admin:hunter2@camera.example/live?password=hunter2"
    with page((source,), live=True) as sink, viewer(sink, logger=logging.Logger("client")) as connection:
        seen = Seen(connection)
        hello = seen.next("hello")
        write(sink, result(0, source=source))
        frame = seen.next("frame")
        everything = json.dumps([hello, seen.next("status"), {**frame, "jpeg": ""}]) + caplog.text
    assert "camera.example/live" in everything
    assert "hunter2" not in everything and "admin" not in everything


def test_with_a_certificate_it_is_https(certificate):
    import ssl

    from websockets.sync.client import connect

    with page(tls=certificate) as sink:
        assert sink.url.startswith("https://127.0.0.1:")
        context = ssl.create_default_context(cafile=certificate[0])
        where = sink.url.replace("https", "wss") + "ws"
        with connect(where, ssl=context, origin=Origin(sink.url.rstrip("/"))) as connection:
            Seen(connection).next("hello")


@pytest.mark.parametrize(("content", "message"), [(None, "does not exist"), ("no certificate", "cannot be used")])
def test_an_unusable_certificate_is_named(tmp_path, content, message):
    path = tmp_path / "chain.pem"
    if content is not None:
        path.write_text(content)
    with pytest.raises(SinkError, match=message), page(tls=(path, path)):
        pass


# -- addresses that cannot be served


def test_a_taken_port_says_so_and_names_another():
    with page() as sink:
        port = urlsplit(sink.url).port or 0
        with (
            pytest.raises(SinkError, match=rf"port {port} is in use .* --web {port + 1}"),
            page(address=Address("127.0.0.1", port)),
        ):
            pass


@pytest.mark.parametrize(
    ("host", "message"), [("no-such-host.invalid", "is not known"), ("192.0.2.1", "not an address of this machine")]
)
def test_a_bad_host_says_so(host, message):
    with pytest.raises(SinkError, match=message), page(address=Address(host, 0)):
        pass


# -- who gets what


def test_a_viewer_gets_the_newest_picture_and_its_people():
    with page() as sink:
        for index in range(5):
            write(sink, result(index, people=person_at(20, 30)))
        with viewer(sink) as connection:
            seen = Seen(connection)
            hello = seen.next("hello")
            assert hello["skeletons"]["17"]["edges"] and len(hello["skeletons"]["17"]["joint_colors"]) == 17
            frame = seen.next("frame")
            assert (frame["frame"], frame["name"], frame["wh"], frame["dropped"]) == (4, "a.mp4", [64, 48], 0)
            assert frame["people"][0]["keypoints"][-3:] == [200, 300, 900]
            assert frame["captured_ms"] == pytest.approx(time.monotonic() * 1e3, abs=5e3)
            image = cv2.imdecode(np.frombuffer(frame["jpeg"], np.uint8), cv2.IMREAD_COLOR)
            assert image is not None and image.shape == (48, 64, 3) and abs(int(image[5, 5, 0]) - 44) <= 2


def test_a_large_picture_is_sent_smaller_and_its_people_are_not():
    with page() as sink, viewer(sink) as connection:
        write(sink, result(0, wh=(2560, 720), people=person_at(2000, 30)))
        frame = Seen(connection).next("frame")
        image = cv2.imdecode(np.frombuffer(frame["jpeg"], np.uint8), cv2.IMREAD_COLOR)
        assert image is not None and image.shape == (360, 1280, 3)
        assert frame["wh"] == [2560, 720] and frame["people"][0]["keypoints"][0] == 20_000


def test_two_frames_are_on_their_way_at_most_and_then_the_newest_comes():
    with page() as sink, viewer(sink) as connection:
        seen = Seen(connection)
        seen.next("hello")
        write(sink, result(0))
        first = seen.next("frame")
        write(sink, result(1))
        seen.next("frame")
        for index in range(2, 8):
            write(sink, result(index))
        assert seen.frames(for_s=0.3) == []
        seen.acknowledge(first)
        assert seen.next("frame")["frame"] == 7
        assert seen.frames(for_s=0.2) == []


def test_nothing_is_encoded_for_nobody_and_once_for_many(monkeypatch):
    encoded = []
    encode = tiles.TileFrame.encode

    def counted(shot: tiles.TileFrame, max_side: int) -> bytes:
        encoded.append(shot.seq)
        return encode(shot, max_side)

    monkeypatch.setattr(tiles.TileFrame, "encode", counted)
    with page() as sink:
        for index in range(5):
            write(sink, result(index))
        time.sleep(0.1)
        assert encoded == []
        with ExitStack() as stack:
            seen = [Seen(stack.enter_context(viewer(sink))) for _ in range(4)]
            assert {one.next("frame")["seq"] for one in seen} == {5}
            write(sink, result(5))
            assert {one.next("frame")["seq"] for one in seen} == {6}
        assert encoded.count(6) == 1 and encoded.count(5) == 1


def test_a_viewer_that_stalls_costs_the_others_nothing():
    with page() as sink, viewer(sink) as stalled, viewer(sink) as lively:
        seen = Seen(lively)
        times = []
        for index in range(60):
            start = time.monotonic()
            write(sink, result(index, wh=(320, 240)))
            times.append(time.monotonic() - start)
            frame = seen.next("frame")
            assert frame["frame"] == index
            seen.acknowledge(frame)
        assert np.median(times) < 0.005  # writing waits for nobody
        assert len(Seen(stalled).frames(for_s=0.2)) == 2


def test_sources_side_by_side_have_their_own_numbers_drops_and_states():
    with page(("left", "right"), side_by_side=True, live=True) as sink, viewer(sink) as connection:
        seen = Seen(connection)
        assert [s["name"] for s in seen.next("hello")["sources"]] == ["left", "right"]
        for index in (0, 1, 5):
            write(sink, result(index, source="right"))
            frame = seen.next("frame")
            seen.acknowledge(frame)
        assert (frame["source"], frame["dropped"]) == (1, 3)
        sink.set_state("left", "reconnecting", "for the 3rd time")
        while (status := seen.next("status"))["sources"][0]["state"] == "starting":
            pass
        left, right = status["sources"]
        assert (left["state"], left["text"], left["age_ms"]) == ("reconnecting", "for the 3rd time", None)
        assert (right["state"], right["dropped"]) == ("live", 3) and 0 <= right["age_ms"] < 5000


def test_sources_in_turn_share_a_tile_that_names_the_one_that_runs():
    with page(("a.mp4", "b.mp4")) as sink, viewer(sink) as connection:
        seen = Seen(connection)
        assert len(seen.next("hello")["sources"]) == 1
        write(sink, result(7, source="a.mp4"))
        seen.next("frame")
        write(sink, result(0, source="b.mp4"))
        frame = seen.next("frame")
        assert (frame["source"], frame["name"], frame["dropped"]) == (0, "b.mp4", 0)


def test_a_live_source_that_falls_silent_is_shown_as_stalled(monkeypatch):
    monkeypatch.setattr(tiles, "STALLED_AFTER_S", 0.2)
    with page(live=True) as sink, viewer(sink) as connection:
        seen = Seen(connection)
        write(sink, result(0))
        states = [seen.next("status")["sources"][0]["state"] for _ in range(3)]
        assert states[-1] == "stalled"
        monkeypatch.setattr(tiles, "STALLED_AFTER_S", 5.0)
        write(sink, result(1))
        assert eventually(lambda: seen.next("status")["sources"][0]["state"] == "live")


# -- what viewers send


def test_a_ping_comes_back_with_the_servers_time():
    with page() as sink, viewer(sink) as connection:
        connection.send('{"type":"ping","sent":12.25}')
        pong = Seen(connection).next("pong")
        assert pong["sent"] == 12.25 and pong["now"] == pytest.approx(time.monotonic() * 1e3, abs=5e3)


@pytest.mark.parametrize(
    "message",
    [
        "x",
        "{}",
        '{"type":"ack","source":0,"seq":1}',
        '{"type":"ack","source":99,"seq":1}',
        b"",
        b"\0\0\0\2{}\xff\xd8",
        pack_frame({}, b"\xff\xd8"),
    ],
)
def test_malformed_messages_close_the_connection_and_no_other(message):
    with page() as sink, viewer(sink) as other, viewer(sink) as connection:
        connection.send(message)
        assert closed(connection)[0] == 1008
        write(sink, result(0))
        assert Seen(other).next("frame")["frame"] == 0


@pytest.mark.parametrize("camera", [False, True])
def test_oversized_messages_close_the_connection(camera):
    with page(("browser",), camera=BrowserSource() if camera else None) as sink, viewer(sink) as connection:
        connection.send(b"\0" * (3 << 20 if camera else 4096))
        assert closed(connection)[0] == 1009


def test_a_flood_of_requests_closes_the_connection():
    with page() as sink, viewer(sink) as connection:
        for _ in range(200):
            try:
                connection.send('{"type":"ping","sent":1}')
            except ConnectionClosed:
                break
        assert closed(connection) == (1008, "refused: too many requests")


# -- how it ends


def test_it_says_goodbye_and_leaves_no_thread():
    before = set(threading.enumerate())
    with ExitStack() as stack:
        with page() as sink:
            connection = stack.enter_context(viewer(sink))
            seen = Seen(connection)
            seen.next("hello")
            sink.end_text = "The camera was unplugged."
        assert seen.next("end")["text"] == "The camera was unplugged."
        assert closed(connection)[0] == 1001
        sink.close()  # again
    assert {t for t in threading.enumerate() if t.name.startswith("web")} - before == set()


def test_closing_waits_for_no_viewer_that_takes_nothing():
    with page() as sink:
        port = urlsplit(sink.url).port
        deaf = socket.create_connection(("127.0.0.1", port), timeout=5)
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.sendall(
            f"GET /ws HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        noise = np.random.default_rng(0).integers(0, 256, (1280, 1280, 3), np.uint8)
        assert eventually(lambda: sink.viewers == 1)
        for index in range(3):
            shot = result(index)
            object.__setattr__(shot.frame, "image", noise)  # two pictures of this fill every buffer on the way
            write(sink, shot)
            time.sleep(0.1)
        start = time.monotonic()
    assert time.monotonic() - start < 5
    deaf.close()


def test_viewers_that_come_and_go_leave_nothing():
    with page() as sink:
        write(sink, result(0))

        def held() -> tuple[int, int]:
            return len(list(Path("/proc/self/fd").iterdir())), threading.active_count()

        def come_and_go(times: int) -> None:
            for number in range(times):
                with viewer(sink, compression=None) as connection:
                    if number % 2:
                        connection.socket.shutdown(socket.SHUT_RDWR)  # without a goodbye
            assert eventually(lambda: sink.viewers == 0)

        come_and_go(10)
        before = held()
        come_and_go(100)
        assert eventually(lambda: held() <= before)


def test_no_more_viewers_come_in_than_there_is_room_for(monkeypatch):
    monkeypatch.setattr("pipeline.sinks.web.hub.MAX_VIEWERS", 1)
    with page() as sink, viewer(sink) as first, viewer(sink) as second:
        assert closed(second) == (1013, "1 viewers are connected already")
        Seen(first).next("status")


def test_connections_beyond_the_limit_are_cut_off_and_the_page_comes_back(monkeypatch, capfd):
    monkeypatch.setattr("pipeline.sinks.web.server.MAX_CONNECTIONS", 3)
    with page() as sink, ExitStack() as stack:
        where = ("127.0.0.1", urlsplit(sink.url).port)
        silent = [stack.enter_context(socket.create_connection(where, timeout=5)) for _ in range(3)]
        with suppress(ConnectionResetError), socket.create_connection(where, timeout=5) as fourth:
            assert fourth.recv(1) == b""
        for one in silent:
            one.close()

        def answers() -> bool:
            with suppress(OSError, http.client.HTTPException):
                return get(sink)[0] == 200
            return False

        assert eventually(answers)
    assert capfd.readouterr().err == ""


# -- the visitor's camera


def shoot(connection, *, wh=(64, 48), captured_ms=None) -> None:
    jpeg = cv2.imencode(".jpg", np.full((wh[1], wh[0], 3), 90, np.uint8))[1].tobytes()
    connection.send(pack_frame({"captured_ms": captured_ms}, jpeg))


def test_a_visitors_pictures_become_frames_of_the_source_browser():
    source = BrowserSource()
    with page(("browser",), camera=source, live=True) as sink, viewer(sink) as connection:
        seen = Seen(connection)
        hello = seen.next("hello")
        assert hello["camera"] == 0 and hello["sources"][0]["state"] == "waiting"
        connection.send('{"type":"camera"}')
        assert seen.next("camera")["granted"]
        frames = iter(source)
        now = time.monotonic()
        shoot(connection, captured_ms=(now - 0.05) * 1e3)
        frame = next(frames)
        assert (frame.wh, frame.index, frame.source) == ((64, 48), 0, "browser")
        assert frame.captured_at == pytest.approx(now - 0.05)
        seen.next("taken")
        shoot(connection, captured_ms=9e15)  # a clock that lies
        assert next(frames).captured_at == pytest.approx(time.monotonic(), abs=2)
        source.interrupt()
        assert list(frames) == []


def test_one_visitor_at_a_time_gives_a_camera_and_the_next_when_they_leave():
    with page(("browser",), camera=BrowserSource()) as sink, viewer(sink) as second:
        seen = Seen(second)
        with viewer(sink) as first:
            first.send('{"type":"camera"}')
            assert Seen(first).next("camera")["granted"]
            second.send('{"type":"camera"}')
            assert seen.next("camera") == {
                "type": "camera",
                "granted": False,
                "text": "Another visitor's camera is in use.",
            }
        assert eventually(lambda: not seen.next("status")["camera"])
        second.send('{"type":"camera"}')
        assert seen.next("camera")["granted"]


def test_pictures_that_nobody_asked_for_close_the_connection():
    with page(("browser",), camera=BrowserSource()) as sink, viewer(sink) as connection:
        shoot(connection)
        assert closed(connection) == (1008, "refused: a picture that was not requested")
    with page() as sink, viewer(sink) as connection:
        connection.send('{"type":"camera"}')
        answer = Seen(connection).next("camera")
        assert not answer["granted"] and "source browser" in answer["text"]


def test_a_flood_of_pictures_closes_the_connection_and_keeps_at_most_one(caplog):
    caplog.set_level(logging.DEBUG, "pipeline.sinks.web")
    source = BrowserSource()
    with page(("browser",), camera=source) as sink, viewer(sink) as connection:
        connection.send('{"type":"camera"}')
        Seen(connection).next("camera")
        with pytest.raises(ConnectionClosed):
            deadline = time.monotonic() + WAIT_S
            while time.monotonic() < deadline:  # without waiting for `taken`
                shoot(connection)
        # what it was told may be lost: it was sending, not listening, when the connection was cut
        assert "a viewer was closed: too many pictures" in caplog.text
        assert eventually(lambda: sink.viewers == 0)
        with viewer(sink) as other:  # the source waits for the next visitor
            other.send('{"type":"camera"}')
            assert Seen(other).next("camera")["granted"]


def test_a_picture_that_cannot_be_decoded_closes_the_connection_and_not_the_source():
    source = BrowserSource()
    with page(("browser",), camera=source) as sink:
        frames = iter(source)
        found: list[Frame] = []
        reader = threading.Thread(target=lambda: found.extend(frames))
        reader.start()
        with viewer(sink) as connection:
            connection.send('{"type":"camera"}')
            Seen(connection).next("camera")
            jpeg = cv2.imencode(".jpg", np.zeros((48, 64, 3), np.uint8))[1].tobytes()
            at = jpeg.index(b"\xff\xc0")
            connection.send(pack_frame({}, jpeg[: at + 11]))  # a size, and nothing after it
            assert closed(connection) == (1008, "refused: a picture that cannot be decoded")
        with viewer(sink) as connection:
            connection.send('{"type":"camera"}')
            Seen(connection).next("camera")
            shoot(connection)
            assert eventually(lambda: len(found) == 1)
        source.interrupt()
        reader.join(10)
        assert not reader.is_alive()
