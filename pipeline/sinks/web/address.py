"""The page's address, its access token, and the checks of a request's headers. No sockets."""

from __future__ import annotations

import hmac
import ipaddress
import secrets
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

DEFAULT_HOST = "127.0.0.1"
TOKEN_BYTES = 16
DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Address:
    """host: as the user gave it, without brackets. port: 0 lets the system choose one."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Address:
        """From `[HOST:]PORT`; an IPv6 host stands in brackets. Raises ValueError."""
        host, colon, port = text.rpartition(":")
        if colon and host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
            good = _ip(host) is not None
        else:
            good = not colon or (host != "" and not set(host) & set(":/@[] ?#"))
        if not good or not port.isascii() or not port.isdecimal() or not 0 <= int(port) <= 65535:
            raise ValueError(f"got {text}, expected [HOST:]PORT, such as 8000, 0.0.0.0:8000 or [::1]:8000")
        return cls(host or DEFAULT_HOST, int(port))

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        ip = _ip(self.host)
        return self.host.lower() == "localhost" if ip is None else ip.is_loopback

    @property
    def is_any(self) -> bool:
        """Whether it means every address of this machine, such as 0.0.0.0."""
        ip = _ip(self.host)
        return ip is not None and ip.is_unspecified


@dataclass(frozen=True)
class AccessCheck:
    """Checks the Host, the Origin and the token of a request, in this order. token: None if none is required."""

    address: Address
    scheme: str
    token: str | None

    @classmethod
    def of(cls, address: Address, *, tls: bool) -> AccessCheck:
        """With a new random token if other machines can reach the address."""
        token = None if address.is_loopback else secrets.token_urlsafe(TOKEN_BYTES)
        return cls(address, "https" if tls else "http", token)

    def url(self) -> str:
        """The page's URL. For an address that means every address of this machine, the one that others can reach."""
        host = _reachable_host() if self.address.is_any else self.address.host
        host = f"[{host}]" if ":" in host else host
        query = f"?token={self.token}" if self.token is not None else ""
        return f"{self.scheme}://{host}:{self.address.port}/{query}"

    def refusal(
        self, target: str, hosts: Sequence[str], origins: Sequence[str], *, ask_token: bool = True
    ) -> str | None:
        """The reason to refuse a request, or None. target: path and query. hosts, origins: values of those headers.

        Host must be an address or name of this machine: with DNS rebinding, another site's name points to this machine
        and is sent as Host. Origin must be this page's: a page of another site sends its own.
        The port of Host is not checked, since a tunnel (`ssh -L`) has another port.
        """
        if len(hosts) != 1 or not self._is_ours(_host_name(hosts[0])):
            return "the request names another host than this one"
        if origins and (len(origins) > 1 or not self._is_same_origin(origins[0], hosts[0])):
            return "the request comes from the page of another site"
        if self.token is not None and ask_token:
            given = parse_qs(target.partition("?")[2]).get("token", [""])
            if len(given) != 1 or not hmac.compare_digest(given[0].encode(), self.token.encode()):
                return "the token is missing or wrong; open the address that the program printed"
        return None

    def _is_ours(self, name: str) -> bool:
        ip = _ip(name)
        if ip is not None:
            return ip.is_loopback or not self.address.is_loopback
        names = {"localhost"}
        if not self.address.is_loopback:
            machine = socket.gethostname().lower()
            names |= {self.address.host.lower(), machine, f"{machine.split('.', maxsplit=1)[0]}.local"}
        return name in names

    def _is_same_origin(self, origin: str, host: str) -> bool:
        scheme, _, rest = origin.partition("://")
        default = DEFAULT_PORTS[self.scheme]
        return scheme == self.scheme and _with_port(rest.lower(), default) == _with_port(host.lower(), default)


def _ip(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _host_name(host: str) -> str:
    """The name or address in a Host header, lower case; "" if it is malformed."""
    try:
        return (urlsplit(f"//{host}").hostname or "").removesuffix(".") if not set(host) & set("/@?#\\ ") else ""
    except ValueError:
        return ""


def _with_port(host: str, default: int) -> str:
    return host if host.rpartition(":")[2].isdecimal() and not host.endswith("]") else f"{host}:{default}"


def _reachable_host() -> str:
    """This machine's address on the network that its default route leads to; no packet is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # TEST-NET-1: an address of nobody
            return str(probe.getsockname()[0])
        except OSError:
            return socket.gethostname()
