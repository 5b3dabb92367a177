"""Synthetic people with true joints: the bundled clip, and pictures for training and tests. Needs numpy and OpenCV."""

from samples.people import draw_picture

__all__ = ["draw_picture"]
