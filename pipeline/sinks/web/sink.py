"""WebSink: shows results on the page. `write` stores the newest frame of each source and returns without waiting."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from core.joints import JOINT_SETS, JointSet
from pipeline.draw import COLORS
from pipeline.sinks.base import Sink
from pipeline.sinks.web.address import Address
from pipeline.sinks.web.hub import CameraReceiver
from pipeline.sinks.web.server import WebServer
from pipeline.sinks.web.tiles import Tile, TileFrame
from pipeline.sources.base import is_browser
from pipeline.sources.names import public_name
from pipeline.types import Result


class WebSink(Sink):
    """Serves a page at `url` until `close`.

    sources: names, as in `Frame.source`. side_by_side: each source has its own tile; else they run one after another
    and share a tile. live: frames come in real time, so that a source without new frames is shown as stalled.
    camera: receives the pictures of the visitor's camera, for the source `browser`.
    Raises SinkError if the page cannot be served.
    """

    needs_picture = False

    def __init__(
        self,
        address: Address,
        sources: Sequence[str],
        *,
        side_by_side: bool = False,
        live: bool = False,
        tls: tuple[Path, Path] | None = None,
        camera: CameraReceiver | None = None,
    ) -> None:
        names = [public_name(name) for name in (sources if side_by_side else sources[:1])]
        self._tiles = [
            Tile(number, name, live, of_visitor=camera is not None and is_browser(name))
            for number, name in enumerate(names)
        ]
        self._by_name = {tile.name: tile for tile in self._tiles} if side_by_side else {}
        self._server = WebServer(address, self._tiles, skeletons=_skeletons(), tls=tls, camera=camera).start()
        self.url = self._server.url
        self.end_text = "The program has ended."  # shown by the page after `close`

    @property
    def viewers(self) -> int:
        return self._server.viewers

    def write(self, result: Result, picture: NDArray[np.uint8]) -> None:
        frame = result.frame
        name = public_name(frame.source)
        tile = self._by_name.get(name, self._tiles[0])
        tile_frame = TileFrame(tile.number, name, frame, result.people)
        tile.add(tile_frame)
        self._server.publish(tile)

    def set_state(self, source: str, state: str, text: str = "") -> None:
        """Set the state of a source until its next frame: "reconnecting", "ended" or "failed". text: the reason."""
        self._by_name.get(public_name(source), self._tiles[0]).override = (state, text)

    def close(self) -> None:
        self._server.close(self.end_text)


def _skeletons() -> dict[str, object]:
    """Number of joints -> the edges, and the colours of joints and edges in `draw_people`."""
    return {str(len(joints)): _fields(joints) for joints in JOINT_SETS.values()}


def _fields(skeleton: JointSet) -> dict[str, object]:
    colors = {side: f"#{r:02x}{g:02x}{b:02x}" for side, (b, g, r) in COLORS.items()}
    return {
        "joints": skeleton.joints,
        "edges": skeleton.edges,
        "joint_colors": [colors[skeleton.side(joint)] for joint in range(len(skeleton))],
        "edge_colors": [colors[skeleton.edge_side(edge)] for edge in skeleton.edges],
    }
