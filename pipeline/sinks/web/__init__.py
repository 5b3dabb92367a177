"""People on a page in the browser: the server, what goes over its socket, and the page itself (`page/`)."""

from pipeline.sinks.web.address import Address
from pipeline.sinks.web.sink import WebSink

__all__ = ["Address", "WebSink"]
