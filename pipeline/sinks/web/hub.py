"""Hub: sends frames to every viewer and receives the visitor's camera pictures. Runs only in the server's event loop.

A viewer has at most IN_FLIGHT unacknowledged frames of a tile, and gets the newest frame when it acknowledges one. So a
slow viewer does not delay others. A picture is encoded once for all viewers, and not at all without viewers.
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
MAX_SIDES = ((1, 1280), (4, 960))  # (number of tiles, longest side of their pictures up to that number)
SMALL_SIDE = 640  # longest side for more tiles


class CameraReceiver(Protocol):
    """Receives pictures of a visitor's camera: `pipeline.sources.browser.BrowserSource`. Its methods do not wait."""

    def offer(self, jpeg: bytes, captured_at: float | None, taken: Callable[[str | None], None]) -> None:
        """Pass a picture. captured_at: as in Frame; None if unknown. taken: called once, in any thread, with None when
        another picture may be sent, or with the reason that this one is invalid."""

    def visitor_left(self) -> None:
        """The visitor has left; another one may come."""


class Hub:
    """skeletons: sent to the page unchanged. on_failure: called with an error that ends serving."""

    def __init__(
        self,
        tiles: Sequence[Tile],
        *,
        skeletons: object,
        camera: CameraReceiver | None,
        on_failure: Callable[[BaseException], None],
    ) -> None:
        self._tiles = tiles
        self._skeletons = skeletons
        self._camera = camera
        self._on_failure = on_failure
        self._loop = asyncio.get_running_loop()
        self._viewers: set[Viewer] = set()
        self._camera_viewer: Viewer | None = None
        self._camera_in_flight = 0  # pictures that the source has not taken yet
        self._closing: set[asyncio.Task[None]] = set()
        self._max_side = next((side for count, side in MAX_SIDES if len(tiles) <= count), SMALL_SIDE)

    def __len__(self) -> int:
        return len(self._viewers)

    async def serve_viewer(self, connection: ServerConnection) -> None:
        """Serve a viewer until its connection ends."""
        from websockets.exceptions import ConnectionClosed

        if len(self._viewers) >= MAX_VIEWERS:
            await connection.close(TRY_AGAIN_LATER, f"{MAX_VIEWERS} viewers are connected already")
            return
        viewer = Viewer(connection)
        self._viewers.add(viewer)
        try:
            self._send(viewer, self._hello())
            for tile in self._tiles:
                self.offer(tile)
            async for message in connection:
                self._handle(viewer, message)
        except ProtocolError as error:
            logger.debug("a viewer was closed: %s", error)
            await connection.close(POLICY_VIOLATION, f"refused: {error}"[:120])
        except ConnectionClosed:
            pass
        finally:
            self._viewers.discard(viewer)
            self._release_camera(viewer)

    def offer(self, tile: Tile) -> None:
        """Send the tile's newest frame to every viewer that can take it; encode it first if necessary."""
        newest = tile.newest
        if newest is None or not any(viewer.wants(tile.number, newest.seq) for viewer in self._viewers):
            return
        if tile.message_seq < newest.seq:
            # in this thread: passing it to another thread and back costs a fifth of the time of encoding
            try:
                tile.message, tile.message_seq = newest.encode(self._max_side), newest.seq
            except Exception as error:  # raised by the next `WebServer.publish`
                self._on_failure(error)
                return
        for viewer in self._viewers:
            if viewer.wants(tile.number, tile.message_seq):
                viewer.sent(tile.number, tile.message_seq)
                self._send(viewer, tile.message)

    async def repeat_status(self) -> None:
        while True:
            sources = [tile.status() for tile in self._tiles]
            self.broadcast(
                pack_text("status", sources=sources, viewers=len(self._viewers), camera=self._camera_viewer is not None)
            )
            await asyncio.sleep(STATUS_INTERVAL_S)

    def broadcast(self, text: str) -> None:
        """Send a text to every viewer whose write buffer is empty, so that a stalled viewer's buffer does not grow."""
        for viewer in self._viewers:
            if viewer.connection.transport.get_write_buffer_size() == 0:
                self._send(viewer, text)

    def _send(self, viewer: Viewer, message: str | bytes) -> None:
        from websockets.asyncio.server import broadcast  # unlike `send`, it does not wait for the viewer

        broadcast([viewer.connection], message)

    def _hello(self) -> str:
        number = next((tile.number for tile in self._tiles if tile.of_visitor), None)
        return pack_text(
            "hello", sources=[tile.status() for tile in self._tiles], skeletons=self._skeletons, camera=number
        )

    def _handle(self, viewer: Viewer, message: str | bytes) -> None:
        """Raises ProtocolError."""
        if isinstance(message, bytes):
            self._handle_picture(viewer, parse_picture(message))
            return
        match parse_text(message):
            case Ack() as ack:
                viewer.acknowledge(ack)
                self.offer(self._tiles[ack.source])  # this tile exists, since its frame was sent
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
        """The reason to refuse, or None."""
        if self._camera is None:
            return "The program was started without the source browser."
        if self._camera_viewer not in (None, viewer):
            return "Another visitor's camera is in use."
        self._camera_viewer = viewer
        return None

    def _release_camera(self, viewer: Viewer) -> None:
        if self._camera is not None and self._camera_viewer is viewer:
            self._camera_viewer, self._camera_in_flight = None, 0
            self._camera.visitor_left()
            for tile in self._tiles:
                if tile.of_visitor:
                    tile.override = "waiting", ""

    def _handle_picture(self, viewer: Viewer, picture: CameraPicture) -> None:
        """Raises ProtocolError if the camera was not granted, or for more than IN_FLIGHT pictures without `taken`."""
        if self._camera is None or self._camera_viewer is not viewer:
            raise ProtocolError("a picture that was not requested")
        if self._camera_in_flight >= IN_FLIGHT:
            raise ProtocolError("too many pictures")
        self._camera_in_flight += 1
        captured_at = None if picture.captured_ms is None else picture.captured_ms / 1e3
        self._camera.offer(picture.jpeg, captured_at, lambda problem: self._on_taken(viewer, problem))

    def _on_taken(self, viewer: Viewer, problem: str | None) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._handle_taken, viewer, problem)

    def _handle_taken(self, viewer: Viewer, problem: str | None) -> None:
        if self._camera_viewer is not viewer:
            return
        self._camera_in_flight = max(0, self._camera_in_flight - 1)
        if problem is None:
            self._send(viewer, pack_text("taken"))
        else:
            self._release_camera(viewer)
            task = self._loop.create_task(viewer.connection.close(POLICY_VIOLATION, f"refused: {problem}"[:120]))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
