"""Shape ranges and their text."""

from __future__ import annotations

import pytest

from engine.shapes import ShapeRange, parse_shape


@pytest.mark.parametrize("text", ["1x512x704", "1x256x256:1x512x704:4x1024x1024"])
def test_text_and_back(text):
    shapes = ShapeRange.parse(text)
    assert str(shapes) == text
    assert shapes.is_static == (":" not in text)


def test_a_range_contains_what_lies_between():
    shapes = ShapeRange((1, 256, 256), (1, 512, 704), (4, 1024, 1024))
    assert shapes.contains((2, 256, 1024))
    assert not shapes.contains((5, 512, 512))
    assert not shapes.contains((1, 192, 512))
    assert ShapeRange.static((1, 64, 64)).contains((1, 64, 64))


@pytest.mark.parametrize("text", ["", "512x704", "1x512x704x3", "1x-64x64", "axbxc", "1x1x1:2x2x2", "1x512x704:"])
def test_text_that_is_no_shape(text):
    with pytest.raises(ValueError, match="expected"):
        ShapeRange.parse(text)


@pytest.mark.parametrize("shape", [(0, 64, 64), (1, 0, 64), (1, 100, 64), (1, 64, 32)])
def test_shapes_no_network_takes(shape):
    with pytest.raises(ValueError, match="multiples of 64"):
        ShapeRange.static(shape)


def test_a_range_out_of_order():
    with pytest.raises(ValueError, match="smallest <= best <= largest"):
        ShapeRange((1, 128, 128), (1, 64, 128), (1, 128, 128))


def test_one_shape():
    assert parse_shape("2x64x128") == (2, 64, 128)
