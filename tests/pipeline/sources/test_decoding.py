"""Decoding on a GPU, by a stand-in: the same frames as from software, and a way back where the GPU does not serve."""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.bitstream import BitStreamFilterContext

from core.errors import SourceError
from pipeline.hardware import VideoUnit, find_decoder
from pipeline.sources import open_source
from pipeline.sources.video import VideoSource
from pipeline.types import Frame
from tests.pipeline.fake_nvdec import FakeNvdec
from tests.pipeline.fakes import write_clip
from tests.pipeline.sources.test_pixels import interlaced_film

MATRICES = {"bt709": 1, "bt470bg": 5}


def picture(i: int, wh: tuple[int, int] = (96, 64)) -> np.ndarray:
    """Colours that change from pixel to pixel."""
    return np.random.default_rng(i).integers(0, 255, (wh[1], wh[0], 3), dtype=np.uint8)


def coloured_film(path: Path, *, pix_fmt: str, matrix: str, full_range: bool, wh: tuple[int, int] = (96, 64)) -> Path:
    with av.open(str(path), "w") as film:
        stream: Any = film.add_stream("libvpx-vp9" if path.suffix == ".webm" else "libx264", rate=25)
        stream.width, stream.height = wh
        stream.pix_fmt = pix_fmt
        stream.codec_context.colorspace = MATRICES[matrix]
        stream.codec_context.color_range = 2 if full_range else 1
        for i in range(4):
            frame = av.VideoFrame.from_ndarray(picture(i, wh), "bgr24").reformat(
                format=pix_fmt, dst_colorspace=MATRICES[matrix], dst_color_range=2 if full_range else 1
            )
            frame.pts = i
            film.mux(stream.encode(frame))
        film.mux(stream.encode(None))
    return path


def frames_of(path: Path, **options: Any) -> list[Frame]:
    with open_source(path, **options) as source:
        return list(source)


def assert_same(on_gpu: list[Frame], on_cpu: list[Frame]) -> None:
    assert [(frame.index, frame.time_s) for frame in on_gpu] == [(frame.index, frame.time_s) for frame in on_cpu]
    for ours, theirs in zip(on_gpu, on_cpu, strict=True):
        np.testing.assert_array_equal(ours.image, theirs.image)
        assert ours.image.flags.c_contiguous


@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("matrix", MATRICES)
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv420p10le", "yuv422p"])
def test_frames_equal_softwares_in_every_range_and_matrix(tmp_path, monkeypatch, pix_fmt, matrix, full_range):
    film = coloured_film(tmp_path / "a.mkv", pix_fmt=pix_fmt, matrix=matrix, full_range=full_range)
    on_cpu = frames_of(film, decoder="cpu")
    nvdec = FakeNvdec().use(monkeypatch)
    assert_same(frames_of(film), on_cpu)
    assert nvdec.opened == [True]
    assert [codec.thread_count for codec in nvdec.codecs] == [1]


def test_range_and_matrix_matter_here(tmp_path):
    """Else the test above would compare nothing."""
    ways = [("bt709", False), ("bt709", True), ("bt470bg", False)]
    films = [
        coloured_film(tmp_path / f"{i}.mkv", pix_fmt="yuv420p", matrix=matrix, full_range=full)
        for i, (matrix, full) in enumerate(ways)
    ]
    tags = set()
    for film in films:
        with av.open(str(film)) as opened:
            frame = next(opened.decode(video=0))
            tags.add((frame.colorspace, frame.color_range))
    assert len(tags) == 3


@pytest.mark.parametrize("rotation", [90, 180])
def test_a_rotated_video_is_turned_upright(tmp_path, monkeypatch, rotation):
    film = write_clip(tmp_path / "a.mp4", 3, wh=(96, 64), rotation=rotation, picture=picture)
    on_cpu = frames_of(film, decoder="cpu")
    FakeNvdec().use(monkeypatch)
    assert_same(frames_of(film), on_cpu)


def test_interlaced_and_odd_sized_videos(tmp_path, monkeypatch):
    odd = coloured_film(tmp_path / "a.webm", pix_fmt="yuv420p", matrix="bt709", full_range=False, wh=(65, 49))
    films = [interlaced_film(tmp_path / "a.mp4"), odd]
    on_cpu = [frames_of(film, decoder="cpu") for film in films]
    assert on_cpu[1][0].image.shape == (49, 65, 3)
    FakeNvdec().use(monkeypatch)
    for film, expected in zip(films, on_cpu, strict=True):
        assert_same(frames_of(film), expected)


def test_what_the_codec_crops_at_the_left_and_top_is_cropped(tmp_path, monkeypatch):
    whole = write_clip(tmp_path / "whole.mp4", 3, wh=(192, 128), picture=lambda i: picture(i, (192, 128)))
    film = tmp_path / "a.mp4"
    with av.open(str(whole)) as source, av.open(str(film), "w") as copy:
        stream = source.streams.video[0]
        target = copy.add_stream_from_template(stream, opaque=True)
        cropping = BitStreamFilterContext("h264_metadata=crop_left=64:crop_top=16", stream, target)
        for packet in source.demux(stream):
            if packet.dts is not None:
                for cut in cropping.filter(packet):
                    cut.stream = target
                    copy.mux(cut)
    on_cpu = frames_of(film, decoder="cpu")
    assert on_cpu[0].image.shape == (112, 128, 3)
    FakeNvdec().use(monkeypatch)
    assert_same(frames_of(film), on_cpu)


def test_the_frames_before_a_damage_come_out(tmp_path, monkeypatch):
    film = write_clip(tmp_path / "a.mkv", 30, wh=(96, 64), picture=picture)
    film.write_bytes(film.read_bytes()[: film.stat().st_size * 6 // 10])

    def seen(**options: Any) -> tuple[list[Frame], str]:
        frames: list[Frame] = []
        with open_source(film, **options) as source, pytest.raises(SourceError) as caught:
            frames.extend(source)
        return frames, str(caught.value)

    on_cpu, words = seen(decoder="cpu")
    FakeNvdec().use(monkeypatch)
    on_gpu, same_words = seen()
    assert_same(on_gpu, on_cpu)
    assert words == same_words


@pytest.mark.parametrize(
    ("nvdec", "opened", "why"),
    [
        (FakeNvdec(takes=False), [True, False], r"it does not decode h264 High, 96x64"),
        (FakeNvdec(knows=False), [True], "it does not know the codec h264"),
        (FakeNvdec(refuses=PermissionError(1, "Operation not permitted")), [True, False], "Operation not permitted"),
        (FakeNvdec(refuses=RuntimeError("out of memory")), [True, False], "out of memory"),
    ],
)
def test_what_the_gpu_does_not_take_is_decoded_on_the_cpu(  # noqa: PLR0917
    tmp_path, monkeypatch, caplog, nvdec, opened, why
):
    film = write_clip(tmp_path / "a.mp4", 5, wh=(96, 64), picture=picture)
    on_cpu = frames_of(film, decoder="cpu")
    nvdec.opened.clear()
    nvdec.use(monkeypatch)
    with caplog.at_level(logging.WARNING):
        assert_same(frames_of(film), on_cpu)
    assert nvdec.opened == opened
    assert caplog.messages == [f"{film} is decoded on the CPU, not on the GPU: {why}"]


@pytest.mark.parametrize(
    ("nvdec", "words"),
    [
        (
            FakeNvdec(takes=False),
            "cannot be decoded on the GPU: it does not decode h264 High, 96x64; use",
        ),
        (FakeNvdec(knows=False), "cannot be decoded on the GPU: it does not know the codec h264; use"),
        (FakeNvdec(refuses=PermissionError(1, "Operation not permitted")), "cannot be opened: Operation not permitted"),
    ],
)
def test_if_it_must_be_the_gpu_that_is_an_error(tmp_path, monkeypatch, nvdec, words):
    film = write_clip(tmp_path / "a.mp4", 5, wh=(96, 64), picture=picture)
    nvdec.use(monkeypatch)
    with pytest.raises(SourceError, match=words), VideoSource(str(film), decoder="gpu") as source:
        list(source)


def test_a_file_that_nothing_opens_is_to_blame_itself(tmp_path, monkeypatch, caplog):
    (tmp_path / "a.mp4").write_text("hello\n" * 100)
    FakeNvdec().use(monkeypatch)
    with pytest.raises(SourceError, match="not a video that FFmpeg knows"):
        VideoSource(str(tmp_path / "a.mp4"))
    assert caplog.messages == []


def test_a_pipe_that_the_gpu_does_not_take_goes_on_without_a_second_reading(tmp_path, monkeypatch):
    film = write_clip(tmp_path / "a.mkv", 12, wh=(96, 64), picture=picture)
    on_cpu = frames_of(film, decoder="cpu")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    nvdec = FakeNvdec(takes=False).use(monkeypatch)
    writer = threading.Thread(target=lambda: pipe.write_bytes(film.read_bytes()))
    writer.start()
    on_gpu = frames_of(pipe)
    writer.join(10)
    assert nvdec.opened == [True]
    assert_same(on_gpu, on_cpu)


def test_ffmpeg_as_it_is_here(tmp_path, monkeypatch, caplog):
    """Its own hardware decoder where there is a GPU; else it refuses, and software decodes."""
    film = write_clip(tmp_path / "a.mp4", 5, wh=(256, 192), picture=lambda i: picture(i, (256, 192)))
    on_cpu = frames_of(film, decoder="cpu")
    has_gpu = find_decoder().on_gpu
    monkeypatch.setattr("pipeline.sources.decoding.find_decoder", lambda choice, gpu: VideoUnit(True, "claimed"))
    assert_same(frames_of(film), on_cpu)
    assert has_gpu or [f"{film} is decoded on the CPU, not on the GPU: Operation not permitted"] == caplog.messages


@pytest.mark.gpu
@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv420p10le"])
def test_nvdec_gives_what_software_gives(tmp_path, caplog, pix_fmt, full_range):
    films = [
        coloured_film(tmp_path / "a.mkv", pix_fmt="yuv420p", matrix="bt709", full_range=full_range, wh=(640, 360)),
        write_clip(tmp_path / "b.mp4", 9, wh=(320, 240), rotation=90, picture=lambda i: picture(i, (320, 240))),
        interlaced_film(tmp_path / "c.mp4"),
    ]
    for film in films:
        assert_same(frames_of(film, decoder="gpu" if film.name != "c.mp4" else "auto"), frames_of(film, decoder="cpu"))
