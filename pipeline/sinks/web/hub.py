"""Hub: pictures out to every viewer, the visitor's pictures in. Runs in the server's event loop alone.

A viewer has at most IN_FLIGHT unacknowledged frames of a tile and gets the newest one when it acknowledges: whoever is
slow or stalls costs the others nothing, and a picture is encoded once however many look, and not at all for nobody.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from pipeline.sinks.web.messages import (
    IN_FLIGHT,
    Ack,
    CameraPicture,
    CameraRequest,
    Ping,
    ProtocolError,
    pack_text,
    parse_picture,
    parse_text,
)
from pipeline.sinks.web.tiles import Tile
from pipeline.sinks.web.viewers import Viewer

if TYPE_CHECKING:
    from websockets.asyncio.server import ServerConnection

logger = logging.getLogger(__name__)

MAX_VIEWERS = 64
STATUS_INTERVAL_S = 0.5
POLICY_VIOLATION, TRY_AGAIN_LATER = 1008, 1013
MAX_SIDES = ((1, 1280), (4, 960))  # up to so many tiles, the longer side of their pictures is at most so large
SMALL_SIDE = 640


class CameraTaker(Protocol):
    """Takes pictures of a visitor's camera: `pipeline.sources.browser.BrowserSource`. None of its methods waits."""

    def offer(self, jpeg: bytes, captured_at: float | None, taken: Callable[[str | None], None]) -> None:
        """captured_at: as Frame's; None if unknown. `taken` is called once, from any thread: with None when another
        picture may be sent, or with what is wrong with this one."""

    def left(self) -> None:
        """The visitor has gone; another may come."""


class Hub:
    """skeletons: sent to the page as it is. failed: called with an error that ends serving."""

    def __init__(
        self,
        tiles: Sequence[Tile],
        *,
        skeletons: object,
        camera: CameraTaker | None,
        failed: Callable[[BaseException], None],
    ) -> None:
        self._tiles = tiles
        self._skeletons = skeletons
        self._camera = camera
        self._failed = failed
        self._loop = asyncio.get_running_loop()
        self._viewers: set[Viewer] = set()
        self._giver: Viewer | None = None
        self._given = 0  # pictures of the giver that the source has not taken yet
        self._closing: set[asyncio.Task[None]] = set()
        self._max_side = next((side for count, side in MAX_SIDES if len(tiles) <= count), SMALL_SIDE)

    def __len__(self) -> int:
        return len(self._viewers)

    async def attend(self, connection: ServerConnection) -> None:
        """A viewer, from its first message to its last."""
        from websockets.exceptions import ConnectionClosed

        if len(self._viewers) >= MAX_VIEWERS:
            await connection.close(TRY_AGAIN_LATER, f"{MAX_VIEWERS} viewers are looking already")
            return
        viewer = Viewer(connection)
        self._viewers.add(viewer)
        try:
            self._send(viewer, self._hello())
            for tile in self._tiles:
                self.offer(tile)
            async for message in connection:
                self._take(viewer, message)
        except ProtocolError as error:
            logger.debug("a viewer was closed: %s", error)
            await connection.close(POLICY_VIOLATION, f"refused: {error}"[:120])
        except ConnectionClosed:
            pass
        finally:
            self._viewers.discard(viewer)
            self._release_camera(viewer)

    def offer(self, tile: Tile) -> None:
        """Send the tile's newest frame to everyone who can take it; encode it first, if it is not yet."""
        shot = tile.newest
        if shot is None or not any(viewer.wants(tile.number, shot.seq) for viewer in self._viewers):
            return
        if tile.message_seq < shot.seq:
            # here, not in a thread of its own: handing it over and back costs a fifth of what encoding does
            try:
                tile.message, tile.message_seq = shot.encode(self._max_side), shot.seq
            except Exception as error:  # raised where frames are written
                self._failed(error)
                return
        for viewer in self._viewers:
            if viewer.wants(tile.number, tile.message_seq):
                viewer.sent(tile.number, tile.message_seq)
                self._send(viewer, tile.message)

    async def repeat_status(self) -> None:
        while True:
            sources = [tile.status() for tile in self._tiles]
            self.tell(pack_text("status", sources=sources, viewers=len(self._viewers), camera=self._giver is not None))
            await asyncio.sleep(STATUS_INTERVAL_S)

    def tell(self, text: str) -> None:
        """To every viewer that takes what it is sent; the buffer of one that stalls must not grow."""
        for viewer in self._viewers:
            if viewer.connection.transport.get_write_buffer_size() == 0:
                self._send(viewer, text)

    def _send(self, viewer: Viewer, message: str | bytes) -> None:
        from websockets.asyncio.server import broadcast  # the one that does not wait for the viewer

        broadcast([viewer.connection], message)

    def _hello(self) -> str:
        number = next((tile.number for tile in self._tiles if tile.of_visitor), None)
        return pack_text(
            "hello", sources=[tile.status() for tile in self._tiles], skeletons=self._skeletons, camera=number
        )

    def _take(self, viewer: Viewer, message: str | bytes) -> None:
        """Raises ProtocolError."""
        if isinstance(message, bytes):
            self._take_picture(viewer, parse_picture(message))
            return
        match parse_text(message):
            case Ack() as ack:
                viewer.acknowledge(ack)
                self.offer(self._tiles[ack.source])  # it was sent, so there is such a tile
            case Ping(sent_ms):
                viewer.request()
                self._send(viewer, pack_text("pong", sent=sent_ms, now=self._loop.time() * 1e3))
            case CameraRequest(on):
                viewer.request()
                if on:
                    refusal = self._grant_camera(viewer)
                    self._send(viewer, pack_text("camera", granted=refusal is None, text=refusal or ""))
                else:
                    self._release_camera(viewer)

    def _grant_camera(self, viewer: Viewer) -> str | None:
        """Why not, or None."""
        if self._camera is None:
            return "The program was started without the source browser."
        if self._giver not in (None, viewer):
            return "Another visitor's camera is in use."
        self._giver = viewer
        return None

    def _release_camera(self, viewer: Viewer) -> None:
        if self._camera is not None and self._giver is viewer:
            self._giver, self._given = None, 0
            self._camera.left()
            for tile in self._tiles:
                if tile.of_visitor:
                    tile.told = "waiting", ""

    def _take_picture(self, viewer: Viewer, picture: CameraPicture) -> None:
        """Raises ProtocolError: nobody asked for it, or more than IN_FLIGHT came without waiting for `taken`."""
        if self._camera is None or self._giver is not viewer:
            raise ProtocolError("a picture that was not asked for")
        if self._given >= IN_FLIGHT:
            raise ProtocolError("a flood of pictures")
        self._given += 1
        captured_at = None if picture.captured_ms is None else picture.captured_ms / 1e3
        self._camera.offer(picture.jpeg, captured_at, lambda wrong: self._taken_soon(viewer, wrong))

    def _taken_soon(self, viewer: Viewer, wrong: str | None) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._taken, viewer, wrong)

    def _taken(self, viewer: Viewer, wrong: str | None) -> None:
        if self._giver is not viewer:
            return
        self._given = max(0, self._given - 1)
        if wrong is None:
            self._send(viewer, pack_text("taken"))
        else:
            self._release_camera(viewer)
            task = self._loop.create_task(viewer.connection.close(POLICY_VIOLATION, f"refused: {wrong}"[:120]))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
