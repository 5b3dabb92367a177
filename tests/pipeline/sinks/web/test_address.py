from __future__ import annotations

import pytest

from pipeline.sinks.web.address import AccessCheck, Address

TOKEN = "s3cret-token"
LOCAL = AccessCheck(Address("127.0.0.1", 8000), "http", None)
OPEN = AccessCheck(Address("0.0.0.0", 8000), "http", TOKEN)
NAMED = AccessCheck(Address("demo.example", 8443), "https", TOKEN)


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("8000", "127.0.0.1", 8000),
        ("0.0.0.0:80", "0.0.0.0", 80),
        ("[::1]:9000", "::1", 9000),
        ("demo.example:0", "demo.example", 0),
    ],
)
def test_an_address_is_a_port_with_or_without_a_host(text, host, port):
    assert Address.parse(text) == Address(host, port)


@pytest.mark.parametrize(
    "text",
    ["", "x", ":8000", "65536", "-1", "host:", "::1:80", "[::1]", "[x]:80", "http://h:80", "a b:80", "u@h:8", "²"],
)
def test_what_is_no_address_is_refused_with_an_example(text):
    with pytest.raises(ValueError, match=r"expected \[HOST:\]PORT, such as 8000"):
        Address.parse(text)


def test_a_token_is_asked_for_where_other_machines_can_come():
    for host in ("127.0.0.1", "127.8.8.8", "localhost", "::1"):
        assert AccessCheck.of(Address(host, 1), tls=False).token is None
    checks = [AccessCheck.of(Address(host, 1), tls=True) for host in ("0.0.0.0", "::", "192.168.1.5", "demo.example")]
    tokens = {access.token for access in checks}
    assert None not in tokens and len(tokens) == 4  # each run has its own
    assert all(access.url().endswith(f"/?token={access.token}") for access in checks)


def test_the_address_that_is_shown_can_be_opened():
    assert LOCAL.url() == "http://127.0.0.1:8000/"
    assert NAMED.url() == f"https://demo.example:8443/?token={TOKEN}"
    assert AccessCheck(Address("::1", 80), "http", None).url() == "http://[::1]:80/"
    assert "0.0.0.0" not in OPEN.url()  # stands for every address; browsers open none of that name


@pytest.mark.parametrize(
    "host", ["127.0.0.1:8000", "localhost:8000", "LOCALHOST", "localhost.:8000", "[::1]:8000", "localhost:9999"]
)
def test_names_and_addresses_of_this_machine_are_let_in(host):
    assert LOCAL.refusal("/ws", [host], [f"http://{host}".lower()]) is None
    assert LOCAL.refusal("/ws", [host], []) is None  # no browser, or a page asked for by typing


@pytest.mark.parametrize(
    "host",
    [
        "evil.example:8000",
        "127.0.0.1.evil.example:8000",
        "localhost.evil.example",
        "192.168.1.5:8000",
        "",
        "a@localhost",
        "[::1",
        "localhost#",
        "localhost/x",
    ],
)
def test_a_name_that_was_pointed_at_this_machine_is_refused(host):
    assert "another host" in (LOCAL.refusal("/ws", [host], [f"http://{host}"]) or "")


def test_hosts_that_are_missing_or_doubled_are_refused():
    assert LOCAL.refusal("/", [], []) is not None
    assert LOCAL.refusal("/", ["localhost", "localhost"], []) is not None


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "https://127.0.0.1:8000",
        "http://127.0.0.1:3000",  # another server of this machine
        "http://localhost:8000",
        "http://127.0.0.1:8000.evil.example",
        "null",
        "",
    ],
)
def test_a_page_of_another_site_is_refused(origin):
    assert "another site" in (LOCAL.refusal("/ws", ["127.0.0.1:8000"], [origin]) or "")
    assert LOCAL.refusal("/ws", ["127.0.0.1:8000"], ["http://127.0.0.1:8000", origin]) is not None


def test_the_default_port_may_be_left_out():
    access = AccessCheck(Address("127.0.0.1", 80), "http", None)
    assert access.refusal("/ws", ["localhost"], ["http://localhost:80"]) is None
    assert access.refusal("/ws", ["localhost:80"], ["http://localhost"]) is None


@pytest.mark.parametrize(
    "query",
    ["", "?token=", "?token=wrong", f"?token={TOKEN}x", f"?token={TOKEN}&token=x", f"?x={TOKEN}", "?" + "a=1&" * 99],
)
def test_a_wrong_token_is_refused(query):
    assert OPEN.refusal(f"/ws{query}", ["192.168.1.5:8000"], []) is not None


def test_the_right_token_is_let_in_but_never_without_the_other_checks():
    good = f"/ws?token={TOKEN}"
    assert OPEN.refusal(good, ["192.168.1.5:8000"], ["http://192.168.1.5:8000"]) is None
    assert OPEN.refusal("/style.css", ["192.168.1.5:8000"], [], ask_token=False) is None
    assert NAMED.refusal(good, ["demo.example:8443"], ["https://demo.example:8443"]) is None
    assert OPEN.refusal(good, ["evil.example"], []) is not None
    assert OPEN.refusal(good, ["192.168.1.5:8000"], ["http://evil.example"]) is not None
