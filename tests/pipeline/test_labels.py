"""Labels with ids: above the head, in the id's colour, inside the picture, none over another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from pipeline.labels import SIZES, draw_labels, id_color

HW = (240, 320)
GREY = 128


def drawn(ids: list[int], tops: Sequence[tuple[float, float, float]]) -> np.ndarray:
    picture = np.full((*HW, 3), GREY, np.uint8)
    draw_labels(picture, ids, np.array(tops, np.float64))
    return picture


def place(picture: np.ndarray, person_id: int) -> tuple[int, int, int, int]:
    """First and last column, first and last row of the id's colour."""
    rows, columns = np.nonzero((picture == id_color(person_id)).all(axis=2))
    return columns.min(), columns.max(), rows.min(), rows.max()


def test_a_label_is_above_the_head_in_the_colour_of_the_id():
    left, right, top, bottom = place(drawn([7], [(160, 120, 200)]), 7)
    assert 120 - 60 < top < bottom < 120 - 0.05 * 200
    assert (left + right) / 2 == pytest.approx(160, abs=1)
    assert bottom - top > SIZES[0]


def test_a_larger_person_has_a_larger_label():
    def height(person: float) -> int:
        _, _, top, bottom = place(drawn([7], [(160, 200, person)]), 7)
        return bottom - top

    assert height(40) < height(250) < height(400)


@pytest.mark.parametrize("at", [(-50, 100), (400, 100), (160, 2), (160, 900), (0, 0), (1e6, -1e6)])
def test_a_label_stays_inside_the_picture(at):
    left, right, top, bottom = place(drawn([12], [(*at, 150)]), 12)
    assert right - left > bottom - top > 10  # whole


@pytest.mark.parametrize("row", [150, 6, 0, -40])
def test_labels_of_people_close_together_do_not_cover_each_other(row):
    heads = [(150, row, 120), (155, row - 2, 150), (160, row + 2, 130), (170, row, 110)]
    picture = drawn([1, 2, 3, 4], heads)
    for n, top in zip([1, 2, 3, 4], heads, strict=True):
        alone = place(drawn([n], [top]), n)
        together = place(picture, n)
        assert together[1] - together[0] == alone[1] - alone[0]
        assert together[3] - together[2] == alone[3] - alone[2]
