"""Interlaced, HDR, 10-bit and transparent videos become plain pictures; every frame, at its time."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from core.errors import SourceError
from pipeline.sources import open_source
from pipeline.sources.pixels import PQ_TRANSFER, _tone_map

COUNT = 12


def write(path: Path, pictures: Sequence[Any], codec: str, kind: str, pix_fmt: str, **options: str) -> Path:
    with av.open(str(path), "w") as film:
        stream = film.add_stream(codec, rate=25, options=options)
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = pix_fmt
        if kind == "bgr48le":
            stream.codec_context.color_trc = PQ_TRANSFER
        for index, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, kind).reformat(format=pix_fmt)
            frame.pts, frame.time_base = index, Fraction(1, 25)
            if kind == "bgr48le":
                frame.color_trc = PQ_TRANSFER
            film.mux(stream.encode(frame))
        film.mux(stream.encode(None))
    return path


def moving_bar(field: int) -> NDArray[np.uint8]:
    """A white bar on black, four pixels further in each field."""
    picture = np.zeros((64, 96, 3), np.uint8)
    picture[:, 4 + 4 * field % 80 : 12 + 4 * field % 80] = 255
    return picture


def interlaced_film(path: Path, count: int = COUNT) -> Path:
    woven = []
    for index in range(count):
        picture = moving_bar(2 * index)
        picture[1::2] = moving_bar(2 * index + 1)[1::2]  # the lower field is half a frame later
        woven.append(picture)
    return write(path, woven, "libx264", "bgr24", "yuv420p", flags="+ildct+ilme", crf="1", **{"x264-params": "tff=1"})


def combs(image: NDArray[Any]) -> float:
    """How much rows differ from the mean of their neighbours."""
    grey = image[..., 1].astype(float)
    return float(np.abs(grey[1:-1] - (grey[:-2] + grey[2:]) / 2).mean())


def test_fields_become_whole_pictures_as_many_and_at_their_times(tmp_path):
    film = interlaced_film(tmp_path / "a.mp4")
    with av.open(str(film)) as opened:
        decoded = list(opened.decode(video=0))
        assert all(frame.interlaced_frame for frame in decoded)
        woven = max(combs(frame.to_ndarray(format="bgr24")) for frame in decoded)
    with open_source(film) as source:
        frames = list(source)
    assert [frame.index for frame in frames] == list(range(COUNT))
    assert [frame.time_s for frame in frames] == pytest.approx([index / 25 for index in range(COUNT)])
    assert max(combs(frame.image) for frame in frames[1:-1]) < woven / 3


def test_the_frames_before_a_damage_come_out_of_an_interlaced_file_too(tmp_path):
    film = interlaced_film(tmp_path / "a.mkv", 40)
    film.write_bytes(film.read_bytes()[: film.stat().st_size // 2])
    with av.open(str(film)) as opened:
        whole = 0
        try:
            for _ in opened.decode(video=0):
                whole += 1
        except av.error.FFmpegError:
            pass
    seen: list[int] = []
    with open_source(film) as source, pytest.raises(SourceError, match="cut short"):
        seen.extend(frame.index for frame in source)
    assert seen == list(range(len(seen)))
    assert len(seen) >= whole > 0


def test_pq_is_mapped_to_the_range_of_a_screen(tmp_path):
    """100 cd/m2 is code 0.508; taken as it is, it would be 130 of 255."""
    code = round(0.508 * 65535)
    pictures = [np.full((64, 96, 3), code, np.uint16)] * 3
    film = write(tmp_path / "a.mkv", pictures, "libx264", "bgr48le", "yuv444p10le", crf="1")
    with open_source(film) as source:
        image = next(iter(source)).image
    assert image.dtype == np.uint8
    assert int(np.median(image)) == pytest.approx(255 * (100 / 203) ** (1 / 2.4), abs=6)


def test_the_tone_map_rises_and_ends_at_white():
    table = _tone_map().astype(int)
    assert (np.diff(table) >= 0).all()
    assert (table[0], table[-1]) == (0, 255)


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt"),
    [("a.mkv", "libx264", "yuv420p10le"), ("a.webm", "libvpx-vp9", "yuva420p"), ("a.mov", "qtrle", "argb")],
)
def test_more_bits_and_alpha_are_the_same_picture(tmp_path, name, codec, pix_fmt):
    picture = np.zeros((64, 96, 3), np.uint8)
    picture[:, 48:] = (40, 160, 220)
    film = write(tmp_path / name, [picture] * 3, codec, "bgr24", pix_fmt)
    with open_source(film) as source:
        frames = list(source)
    assert len(frames) == 3
    assert frames[0].image[32, 80].tolist() == pytest.approx([40, 160, 220], abs=8)
    assert frames[0].image[32, 10].tolist() == pytest.approx([0, 0, 0], abs=8)
