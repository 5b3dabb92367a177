"""Drawn people with their true joints: the bundled clip, and pictures for training and tests. numpy and OpenCV only."""

from samples.people import draw_picture

__all__ = ["draw_picture"]
