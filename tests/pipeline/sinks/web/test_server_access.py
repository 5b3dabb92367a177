"""Access to the page: its files, the checks of requests, credentials, TLS and the address."""

from __future__ import annotations

import json
import logging
import re
import socket
from urllib.parse import urlsplit

import pytest
from websockets.typing import Origin

from core.errors import SinkError
from pipeline.sinks.web import Address
from pipeline.sinks.web.files import FOLDER, page_files
from tests.pipeline.sinks.web.serving import (
    Received,
    connect_viewer,
    get,
    page,
    refusal_status,
    result,
    write,
)

ANYWHERE = Address("0.0.0.0", 0)


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


def test_a_wrong_origin_and_a_rebound_host_are_refused():
    with page() as sink:
        port = urlsplit(sink.url).port
        assert refusal_status(sink, origin="http://evil.example") == 403
        assert refusal_status(sink, origin=f"http://localhost:{port}") == 403  # the Host is 127.0.0.1
        assert get(sink, "/", Host="evil.example")[0] == 403
        assert get(sink, "/style.css", Host=f"evil.example:{port}")[0] == 403
        with connect_viewer(sink, origin=f"http://127.0.0.1:{port}") as connection:
            assert Received(connection).next("hello")["sources"][0]["name"] == "a.mp4"


def test_beyond_loopback_the_page_and_its_socket_ask_for_the_token():
    with page(address=ANYWHERE) as sink:
        query = f"?{urlsplit(sink.url).query}"
        assert len(query) > len("?token=") + 20
        assert get(sink, "/")[0] == get(sink, "/index.html")[0] == get(sink, "/?token=guess")[0] == 403
        assert refusal_status(sink) == refusal_status(sink, query="?token=guess") == 403
        assert get(sink, f"/{query}")[0] == get(sink, "/style.css")[0] == 200
        assert "token is missing or wrong" in get(sink, "/")[1]
        with connect_viewer(sink, query=query) as connection:
            Received(connection).next("hello")


def test_the_token_reaches_no_log(caplog, capfd):
    caplog.set_level(logging.DEBUG)
    with page(address=ANYWHERE) as sink:
        token = urlsplit(sink.url).query
        get(sink, f"/?{token}")
        with connect_viewer(sink, query=f"?{token}", logger=logging.Logger("client")) as connection:
            Received(connection).next("hello")
    assert token not in caplog.text + "".join(capfd.readouterr())


def test_credentials_of_an_address_reach_neither_page_nor_log(caplog):
    caplog.set_level(logging.DEBUG)
    source = "rtsp://admin:hunter2@camera.example/live?password=hunter2"
    with page((source,), live=True) as sink, connect_viewer(sink, logger=logging.Logger("client")) as connection:
        seen = Received(connection)
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
        # In TLS 1.3 the server's tickets arrive while this client sends: its two threads then lose an answer at times.
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        where = sink.url.replace("https", "wss") + "ws"
        with connect(where, ssl=context, origin=Origin(sink.url.rstrip("/"))) as connection:
            Received(connection).next("hello")


@pytest.mark.parametrize(("content", "message"), [(None, "does not exist"), ("no certificate", "cannot be used")])
def test_an_unusable_certificate_is_named(tmp_path, content, message):
    path = tmp_path / "chain.pem"
    if content is not None:
        path.write_text(content)
    with pytest.raises(SinkError, match=message), page(tls=(path, path)):
        pass


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
