"""Shows people on a web page: the server, the messages of its WebSocket, and the page (`page/`)."""

from pipeline.sinks.web.address import Address
from pipeline.sinks.web.sink import WebSink

__all__ = ["Address", "WebSink"]
