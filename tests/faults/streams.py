"""Servers that lie: RTSP and HTTP that answer nonsense, stop in the middle, or say nothing at all; and the web page."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.faults.case import Case, Command
from tests.faults.containers import content_of

PATCH = {"open_timeout_s": 1.0, "read_timeout_s": 1.0}
SDP = (
    b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=video 0 RTP/AVP 96\r\n"
    b"a=rtpmap:96 H264/90000\r\na=control:trackID=0\r\n"
)

Answer = Callable[[bytes, int, random.Random], bytes | None]  # request, its number -> reply; None: close


def serve(answer: Answer, rng: random.Random, *, afterwards: bytes = b"", slow: bool = False) -> int:
    """A server on a port of its own, for as long as the test runs; each connection is answered by `answer`."""
    listener = socket.create_server(("127.0.0.1", 0))

    def talk(connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            connection.settimeout(20)
            for number in range(50):
                request = connection.recv(65536)
                if not request:
                    return
                reply = answer(request, number, rng)
                if reply is None:
                    return
                for piece in [reply[i : i + 1] for i in range(len(reply))] if slow else [reply]:
                    connection.sendall(piece)
                    time.sleep(0.02 if slow else 0)
                if request.startswith(b"PLAY") and afterwards:
                    connection.sendall(afterwards)

    def accept() -> None:
        with contextlib.suppress(OSError), listener:
            listener.settimeout(30)
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=talk, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return int(listener.getsockname()[1])


def rtsp(request: bytes, body: bytes = b"", status: bytes = b"200 OK", extra: bytes = b"") -> bytes:
    sequence = request.split(b"CSeq:")[1].split(b"\r\n")[0].strip() if b"CSeq:" in request else b"1"
    length = b"Content-Length: %d\r\n" % len(body) if body else b""
    return b"RTSP/1.0 " + status + b"\r\nCSeq: " + sequence + b"\r\n" + extra + length + b"\r\n" + body


def polite(request: bytes, number: int, rng: random.Random) -> bytes:
    """As a true server answers."""
    if request.startswith(b"DESCRIBE"):
        return rtsp(request, SDP, extra=b"Content-Type: application/sdp\r\n")
    if request.startswith(b"SETUP"):
        return rtsp(request, extra=b"Session: 1\r\nTransport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n")
    return rtsp(request, extra=b"Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN\r\nSession: 1\r\n")


def until(method: bytes, then: Callable[[bytes, random.Random], bytes | None]) -> Answer:
    """Polite up to a method, which is answered otherwise."""
    return lambda request, number, rng: (
        then(request, rng) if request.startswith(method) else polite(request, number, rng)
    )


def packets(rng: random.Random, kind: str) -> bytes:
    """RTP inside RTSP, RFC 2326 section 10.12: what follows PLAY."""
    if kind == "noise":
        return rng.randbytes(20_000)
    made = b""
    for number in range(40):
        payload = rng.randbytes(rng.randrange(1, 900))
        header = bytes([0x80, 96]) + number.to_bytes(2, "big") + (number * 3600).to_bytes(4, "big") + bytes(4)
        length = 65_535 if kind == "lengths that lie" else len(header) + len(payload)
        made += b"$\0" + length.to_bytes(2, "big") + header + payload
    return made


def rtsp_case(name: str, answer: Answer, *, afterwards: str = "", slow: bool = False) -> Case:
    def make(folder: Path, rng: random.Random) -> Command:
        port = serve(answer, rng, afterwards=packets(rng, afterwards) if afterwards else b"", slow=slow)
        lines = folder / "out.jsonl"
        return Command(
            argv=[f"rtsp://user:secret@127.0.0.1:{port}/x", "--json", str(lines), "--limit", "5"],
            statuses=(1, 2),
            outputs=(lines,),
            patch=PATCH,
            limit_s=25,
            words=r"^(?!.*secret)",
        )

    return Case("rtsp", name, make)


def http_answer(kind: str, rng: random.Random) -> bytes | None:
    content = content_of("ts")
    head = b"HTTP/1.1 200 OK\r\nContent-Type: video/mp2t\r\nConnection: close\r\n"
    match kind:
        case "closes at once":
            return None
        case "noise":
            return rng.randbytes(3000)
        case "a header without an end":
            return b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 5000
        case "404":
            return b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
        case "500":
            return b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n"
        case "401":
            return b'HTTP/1.1 401 No\r\nWWW-Authenticate: Basic realm="x"\r\nContent-Length: 0\r\n\r\n'
        case "a redirect to a file":
            return b"HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\nContent-Length: 0\r\n\r\n"
        case "a redirect to nowhere":
            return b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:9/\r\nContent-Length: 0\r\n\r\n"
        case "a page":
            return b"HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n<html>hi</html>"
        case "half of what it says":
            return head + b"Content-Length: %d\r\n\r\n" % len(content) + content[: len(content) // 2]
        case "more than it says":
            return head + b"Content-Length: 100\r\n\r\n" + content
        case "a negative length":
            return head + b"Content-Length: -5\r\n\r\n" + content
        case "chunks that lie":
            return head + b"Transfer-Encoding: chunked\r\n\r\nFFFFFFFF\r\n" + content[:3000]
        case "nothing":
            return head + b"Content-Length: 0\r\n\r\n"
        case "silence":
            time.sleep(6)
            return None
    raise ValueError(kind)


def http_case(kind: str) -> Case:
    def make(folder: Path, rng: random.Random) -> Command:
        port = serve(lambda request, number, r: None if number else http_answer(kind, r), rng)
        lines = folder / "out.jsonl"
        return Command(
            argv=[f"http://127.0.0.1:{port}/a.ts", "--json", str(lines)],
            statuses=(0, 1, 2),
            outputs=(lines,),
            patch=PATCH,
            limit_s=25,
        )

    return Case("http", kind, make)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def raw(port: int, content: bytes, *, wait_s: float = 0.1) -> None:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
        connection.sendall(content)
        connection.settimeout(wait_s)
        connection.recv(1000)


def over_the_socket(port: int, messages: list[str | bytes]) -> None:
    from websockets.exceptions import WebSocketException
    from websockets.sync.client import connect

    with (
        contextlib.suppress(OSError, TimeoutError, WebSocketException, EOFError),
        connect(f"ws://127.0.0.1:{port}/ws", max_size=None, open_timeout=3, close_timeout=0.2) as viewer,
    ):
        for message in messages:
            viewer.send(message)
        viewer.recv(timeout=0.1)


def attack(port: int, rng: random.Random) -> None:
    """One thing that no page of ours does."""
    json_lies: list[object] = [
        {"type": "ack"},
        {"type": "ack", "source": -1, "seq": 2**70},
        {"type": "ack", "source": "x", "seq": None},
        {"type": 5},
        [],
        None,
        {"type": "ping", "sent": "now"},
        {"type": "ping", "sent": 1e308},
        {"type": "camera"},
        {"type": "camera_off"},
        {"type": "ack", "source": 10**6, "seq": 0},
    ]
    match rng.randrange(9):
        case 0:
            raw(port, rng.randbytes(rng.randrange(1, 5000)))
        case 1:
            raw(port, b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n")
        case 2:
            host = rng.choice(["evil.example", "", "127.0.0.1:1", "a" * 5000])
            raw(port, f"GET /{'../' * rng.randrange(9)}etc/passwd HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        case 3:
            raw(port, b"GET /ws HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
        case 4:
            over_the_socket(port, [json.dumps(rng.choice(json_lies)) for _ in range(20)])
        case 5:
            over_the_socket(port, ["[" * rng.randrange(1, 900), "\x00", "{", '"' * 100])
        case 6:
            over_the_socket(port, [rng.randbytes(rng.randrange(0, 3000)) for _ in range(5)])
        case 7:
            over_the_socket(
                port, [(2**31).to_bytes(4, "big") + b"{}", b"\0\0\0\2{}", b'\0\0\0\x09{"a": 1}' + b"\xff\xd8" * 9]
            )
        case 8:
            over_the_socket(port, [rng.randbytes(3 << 20)])


def web_case(seed: int) -> Case:
    """Ten attacks; afterwards a true viewer still gets the page and frames, and the run ends as it should."""

    def make(folder: Path, rng: random.Random) -> Command:
        from websockets.sync.client import connect

        port, lines, clip = free_port(), folder / "out.jsonl", Path(os.environ["FAULTS_SHARED"]) / "clip.mp4"

        def attacks() -> None:
            for _ in range(10):
                attack(port, rng)
            page = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            page.request("GET", "/")
            assert page.getresponse().status == 200
            page.close()
            with connect(f"ws://127.0.0.1:{port}/ws", max_size=None, open_timeout=5) as viewer:
                while not isinstance(viewer.recv(timeout=5), bytes):
                    pass

        return Command(
            argv=[str(clip), "--loop", "--realtime", "--limit", "120", "--web", str(port), "--json", str(lines)],
            after=lines,
            meanwhile=attacks,
            statuses=(0,),
            outputs=(lines,),
        )

    return Case("web", f"attacks {seed}", make)


def cases() -> Iterator[Case]:
    for method in (b"OPTIONS", b"DESCRIBE", b"SETUP", b"PLAY"):
        name = method.decode()
        yield rtsp_case(f"closes at {name}", until(method, lambda request, rng: None))
        yield rtsp_case(f"noise at {name}", until(method, lambda request, rng: rng.randbytes(2000)))
        yield rtsp_case(f"404 at {name}", until(method, lambda request, rng: rtsp(request, status=b"404 Not Found")))
        yield rtsp_case(
            f"401 at {name}",
            until(method, lambda r, rng: rtsp(r, status=b"401 No", extra=b'WWW-Authenticate: Basic realm="x"\r\n')),
        )
        yield rtsp_case(f"silent at {name}", until(method, lambda request, rng: b""))
    yield rtsp_case(
        "a description of noise",
        until(b"DESCRIBE", lambda r, rng: rtsp(r, rng.randbytes(500), extra=b"Content-Type: application/sdp\r\n")),
    )
    yield rtsp_case(
        "a description of nothing",
        until(b"DESCRIBE", lambda r, rng: rtsp(r, b"v=0\r\n", extra=b"Content-Type: application/sdp\r\n")),
    )
    yield rtsp_case("a description shorter than it says", until(b"DESCRIBE", lambda r, rng: rtsp(r, SDP)[:-40]))
    yield rtsp_case(
        "a header without an end", until(b"OPTIONS", lambda r, rng: b"RTSP/1.0 200 OK\r\n" + b"X: y\r\n" * 3000)
    )
    yield rtsp_case(
        "a transport of nobody", until(b"SETUP", lambda r, rng: rtsp(r, status=b"461 Unsupported Transport"))
    )
    yield rtsp_case(
        "a redirect to itself",
        until(b"DESCRIBE", lambda r, rng: rtsp(r, status=b"302 Moved", extra=b"Location: rtsp://127.0.0.1:9/\r\n")),
    )
    yield rtsp_case("plays noise", polite, afterwards="noise")
    yield rtsp_case("plays packets of noise", polite, afterwards="packets")
    yield rtsp_case("plays lengths that lie", polite, afterwards="lengths that lie")
    yield rtsp_case("plays nothing", polite)
    yield rtsp_case("answers byte by byte", polite, slow=True)
    for kind in (
        "closes at once",
        "noise",
        "a header without an end",
        "404",
        "500",
        "401",
        "a redirect to a file",
        "a redirect to nowhere",
        "a page",
        "half of what it says",
        "more than it says",
        "a negative length",
        "chunks that lie",
        "nothing",
        "silence",
    ):
        yield http_case(kind)
    for seed in range(8):
        yield web_case(seed)
