"""Sources of frames: `open_source`, and one file for each kind of source."""

from pipeline.sources.base import IMAGE_SUFFIXES, Source, is_camera, is_image, is_stream, is_url
from pipeline.sources.files import read_image
from pipeline.sources.opening import open_source
from pipeline.sources.realtime import RealTime

__all__ = [
    "IMAGE_SUFFIXES",
    "RealTime",
    "Source",
    "is_camera",
    "is_image",
    "is_stream",
    "is_url",
    "open_source",
    "read_image",
]
