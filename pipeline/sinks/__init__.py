"""Sinks of results, one file for each kind: video, pictures, JSON lines, tables, a window. `outputs` combines them."""

from pipeline.sinks.base import Sink
from pipeline.sinks.folder import FolderSink, file_name
from pipeline.sinks.json_lines import JsonSink, json_line
from pipeline.sinks.pictures import ImageSink
from pipeline.sinks.table import TABLE_SUFFIXES, check_table, open_table
from pipeline.sinks.video import VIDEO_FORMATS, VideoSink
from pipeline.sinks.window import WindowSink, check_display

__all__ = [
    "TABLE_SUFFIXES",
    "VIDEO_FORMATS",
    "FolderSink",
    "ImageSink",
    "JsonSink",
    "Sink",
    "VideoSink",
    "WindowSink",
    "check_display",
    "check_table",
    "file_name",
    "json_line",
    "open_table",
]
