"""Sources, the stages from frames to people, and sinks."""

from pipeline.pose import LIVE_OPTIONS, PosePipeline
from pipeline.sources import Source, open_source
from pipeline.types import Frame, People, Result

__all__ = ["LIVE_OPTIONS", "Frame", "People", "PosePipeline", "Result", "Source", "open_source"]
