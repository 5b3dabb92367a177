"""WebSink: results onto the page. `write` keeps the newest frame of each source and returns; nobody is waited for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from core.joints import JOINT_SETS, JointSet
from pipeline.draw import COLORS
from pipeline.sinks.base import Sink
from pipeline.sinks.web.address import Address
from pipeline.sinks.web.hub import CameraTaker
from pipeline.sinks.web.server import WebServer
from pipeline.sinks.web.tiles import Shot, Tile
from pipeline.sources.base import is_browser
from pipeline.sources.names import public_name
from pipeline.types import Result


class WebSink(Sink):
    """A page at `url`, from now until `close`.

    sources: names as `Frame.source` gives them. side_by_side: each has a tile of its own; else they run one after
    another and share one. live: they come at their own time, so that silence means a stall.
    camera: takes the pictures of the visitor's camera, for the source `browser`.
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
        camera: CameraTaker | None = None,
    ) -> None:
        names = [public_name(name) for name in (sources if side_by_side else sources[:1])]
        self._tiles = [
            Tile(number, name, live, of_visitor=camera is not None and is_browser(name))
            for number, name in enumerate(names)
        ]
        self._by_name = {tile.name: tile for tile in self._tiles} if side_by_side else {}
        self._server = WebServer(address, self._tiles, skeletons=_skeletons(), tls=tls, camera=camera).start()
        self.url = self._server.url
        self.farewell = "The program has ended."  # what the page shows after `close`

    @property
    def viewers(self) -> int:
        return self._server.viewers

    def write(self, result: Result, picture: NDArray[np.uint8]) -> None:
        frame = result.frame
        name = public_name(frame.source)
        tile = self._by_name.get(name, self._tiles[0])
        shot = Shot(tile.number, name, frame, result.people)
        tile.add(shot)
        self._server.publish(tile)

    def tell(self, source: str, state: str, text: str = "") -> None:
        """What the page says of a source until its next frame: "reconnecting", "ended", "failed", and why."""
        self._by_name.get(public_name(source), self._tiles[0]).told = (state, text)

    def close(self) -> None:
        self._server.close(self.farewell)


def _skeletons() -> dict[str, object]:
    """By the number of joints: the edges, and the colour of each joint and edge as `draw_people` has them."""
    return {str(len(joints)): _fields(joints) for joints in JOINT_SETS.values()}


def _fields(skeleton: JointSet) -> dict[str, object]:
    colors = {side: f"#{r:02x}{g:02x}{b:02x}" for side, (b, g, r) in COLORS.items()}
    return {
        "joints": skeleton.joints,
        "edges": skeleton.edges,
        "joint_colors": [colors[skeleton.side(joint)] for joint in range(len(skeleton))],
        "edge_colors": [colors[skeleton.edge_side(edge)] for edge in skeleton.edges],
    }
