"""WebServer: one thread that serves the page and its sockets. Publishing a frame never waits for viewers."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Self

from core.errors import SinkError
from pipeline.sinks.web.address import AccessCheck, Address
from pipeline.sinks.web.files import HEADERS, PLAIN, page_files
from pipeline.sinks.web.hub import CameraReceiver, Hub
from pipeline.sinks.web.messages import MAX_PICTURE_BYTES, MAX_TEXT_BYTES, pack_text
from pipeline.sinks.web.tiles import Tile

if TYPE_CHECKING:
    from websockets.asyncio.server import ServerConnection
    from websockets.http11 import Request, Response

logger = logging.getLogger(__name__)

HANDSHAKE_S, PING_S, CLOSE_S = 10.0, 20.0, 1.0
GOING_AWAY = 1001
MAX_CONNECTIONS = 256  # viewers and requests for the page; the program's file descriptors are limited
WAITING_MESSAGES = 4  # messages of a viewer that are read ahead; more stay in its socket


class WebServer:
    """Serves from `start` to `close`, on `url`.

    tls: paths of the certificate chain and of its key, PEM. camera: receives the visitor's pictures, which are shown on
    the tile with `of_visitor`.
    """

    def __init__(
        self,
        address: Address,
        tiles: Sequence[Tile],
        *,
        skeletons: object = None,
        tls: tuple[Path, Path] | None = None,
        camera: CameraReceiver | None = None,
    ) -> None:
        """Bind the port. Raises SinkError: port in use, unknown host, unreadable certificate, websockets missing."""
        try:
            import websockets  # noqa: F401
        except ImportError as error:
            raise SinkError("--web needs websockets, which is not installed; pip install websockets") from error
        self._ssl = None if tls is None else _certificate(*tls)
        self._listener = _listen(address)
        self.access = AccessCheck.of(Address(address.host, int(self._listener.getsockname()[1])), tls=tls is not None)
        self.url = self.access.url()
        self._tiles = tiles
        self._skeletons = skeletons
        self._camera = camera
        self._hub: Hub | None = None
        self._error: BaseException | None = None
        self._end_text = ""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="web", daemon=True)

    def start(self) -> Self:
        self._thread.start()
        self._ready.wait()
        self._check()
        return self

    def publish(self, tile: Tile) -> None:
        """Send the tile's newest frame to the viewers. Never waits. Raises SinkError if serving has failed."""
        self._check()
        if self._hub is not None and len(self._hub):  # a later viewer gets it when it connects
            self._call(self._hub.offer, tile)

    def close(self, end_text: str = "") -> None:
        """Send `end_text` to every viewer, which the page then shows; stop and join. May be called twice."""
        self._end_text = end_text
        if self._stop is not None:
            self._call(self._stop.set)
        if self._thread.ident is not None:
            self._thread.join()
        self._listener.close()

    @property
    def viewers(self) -> int:
        return len(self._hub) if self._hub is not None else 0

    def _check(self) -> None:
        if self._error is not None:
            where = f"{self.access.address.host}:{self.access.address.port}"
            raise SinkError(f"the page at {where} failed: {self._error}") from self._error

    def _call(self, work: Callable[..., object], *arguments: object) -> None:
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(work, *arguments)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except Exception as error:  # raised by the next `publish`
            self._error = error
        finally:
            self._ready.set()

    def _on_failure(self, error: BaseException) -> None:
        self._error = error

    async def _serve(self) -> None:
        from websockets.asyncio.server import serve

        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        # errors that clients cause on their connections are not printed on stderr
        self._loop.set_exception_handler(lambda loop, context: logger.debug("%s", context["message"]))
        hub = self._hub = Hub(self._tiles, skeletons=self._skeletons, camera=self._camera, on_failure=self._on_failure)
        server = await serve(
            hub.serve_viewer,
            sock=self._listener,
            ssl=self._ssl,
            create_connection=_counted_connection(),
            process_request=self._answer,
            compression=None,  # a JPEG is compressed already
            max_size=MAX_TEXT_BYTES if self._camera is None else 2 * MAX_TEXT_BYTES + MAX_PICTURE_BYTES,
            max_queue=WAITING_MESSAGES,
            open_timeout=HANDSHAKE_S,
            ping_interval=PING_S,
            ping_timeout=PING_S,
            close_timeout=CLOSE_S,
            ssl_handshake_timeout=None if self._ssl is None else HANDSHAKE_S,
            server_header=None,
            # Discard its log: it contains the requests' addresses with the token, and a traceback for every browser
            # that disconnects during a handshake.
            logger=logging.Logger("websockets", logging.CRITICAL + 1),
        )
        status = asyncio.create_task(hub.repeat_status())
        self._ready.set()
        await self._stop.wait()
        status.cancel()
        hub.broadcast(pack_text("end", text=self._end_text))
        server.close(code=GOING_AWAY, reason="the program has ended")
        await server.wait_closed()  # a viewer that does not answer is disconnected after CLOSE_S

    async def _answer(self, connection: ServerConnection, request: Request) -> Response | None:
        """Answer an HTTP request; None lets the WebSocket open. Scripts and styles are public and need no token."""
        path = request.path.partition("?")[0]
        asset = path in page_files() and path not in ("/", "/index.html")
        hosts, origins = request.headers.get_all("Host"), request.headers.get_all("Origin")
        refusal = self.access.refusal(request.path, hosts, origins, ask_token=not asset)
        if refusal is not None:
            return _response(HTTPStatus.FORBIDDEN, PLAIN, f"Refused: {refusal}.\n".encode())
        if path == "/ws":
            return None
        if path not in page_files():
            return _response(HTTPStatus.NOT_FOUND, PLAIN, b"There is no such page.\n")
        return _response(HTTPStatus.OK, *page_files()[path])


def _counted_connection() -> type[ServerConnection]:
    """A connection class that aborts new connections while MAX_CONNECTIONS are open."""
    from websockets.asyncio.server import ServerConnection

    open_now = 0

    class Counted(ServerConnection):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            nonlocal open_now
            open_now += 1
            super().connection_made(transport)
            if open_now > MAX_CONNECTIONS:
                self.transport.abort()

        def connection_lost(self, exc: Exception | None) -> None:
            nonlocal open_now
            open_now -= 1
            super().connection_lost(exc)

    return Counted


def _response(status: HTTPStatus, kind: str, body: bytes) -> Response:
    from websockets.datastructures import Headers
    from websockets.http11 import Response

    headers = Headers({**HEADERS, "Content-Type": kind, "Content-Length": str(len(body)), "Connection": "close"})
    return Response(status.value, status.phrase, headers, body)


def _listen(address: Address) -> socket.socket:
    """Open the server's socket. Raises SinkError."""
    host, port = address.host, address.port
    try:
        family, _, _, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(where[:2], family=family, backlog=128)
    except (OSError, UnicodeError) as error:
        number = error.errno if isinstance(error, OSError) else None
        if isinstance(error, socket.gaierror | UnicodeError):
            reason = f"host {host} is not known; expected an address of this machine, such as 127.0.0.1 or 0.0.0.0"
        elif number == errno.EADDRINUSE:
            reason = f"port {port} is in use by another program; choose another, such as --web {port % 65535 + 1}"
        elif number == errno.EADDRNOTAVAIL:
            reason = f"{host} is not an address of this machine; expected one, such as 127.0.0.1 or 0.0.0.0"
        elif number == errno.EACCES:
            reason = f"port {port} may not be opened by this user; choose one from 1024, such as --web 8000"
        else:
            reason = f"{error.strerror or error}" if isinstance(error, OSError) else str(error)
        raise SinkError(f"--web {host}:{port} cannot be served: {reason}") from error


def _certificate(chain: Path, key: Path) -> ssl.SSLContext:
    """Load the certificate. Raises SinkError."""
    for path in (chain, key):
        if not path.is_file():
            raise SinkError(f"--tls {path} does not exist; expected a certificate and its key, PEM")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)

    def no_password() -> str:  # else OpenSSL asks for it on the terminal
        raise ValueError("the key is protected by a password; expected one without")

    try:
        context.load_cert_chain(chain, key, password=no_password)
    except (ssl.SSLError, OSError, ValueError) as error:
        text = getattr(error, "reason", None) or str(error)
        raise SinkError(
            f"--tls {chain} {key} cannot be used: {text}; expected a certificate and its key, PEM"
        ) from error
    return context
