"""Decoding on a GPU, by a stand-in: the same frames as from software, and a way back where the GPU does not serve."""

from __future__ import annotations

import ctypes
import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.bitstream import BitStreamFilterContext

from core.errors import SourceError
from engine.device import Device, Rows
from kernels.colour import Colour
from kernels.cpu import preprocess_nv12
from pipeline.hardware import VideoUnit, find_decoder
from pipeline.pose import PosePipeline
from pipeline.sources import open_source
from pipeline.sources.video import VideoSource
from pipeline.types import Frame
from tests.pipeline.fake_device import FakeDevice, FakeStream
from tests.pipeline.fake_nvdec import FakeNvdec
from tests.pipeline.fakes import write_clip
from tests.pipeline.sources.test_pixels import interlaced_film
from tests.pipeline.test_device_step import make_step

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


def cropped_film(film: Path) -> Path:
    """Its codec asks for 64 columns at the left and 16 rows at the top to be cut."""
    whole = write_clip(film.with_name("whole.mp4"), 3, wh=(192, 128), picture=lambda i: picture(i, (192, 128)))
    with av.open(str(whole)) as source, av.open(str(film), "w") as copy:
        stream = source.streams.video[0]
        target = copy.add_stream_from_template(stream, opaque=True)
        cropping = BitStreamFilterContext("h264_metadata=crop_left=64:crop_top=16", stream, target)
        for packet in source.demux(stream):
            if packet.dts is not None:
                for cut in cropping.filter(packet):
                    cut.stream = target
                    copy.mux(cut)
    return film


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
    film = cropped_film(tmp_path / "a.mp4")
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
        (FakeNvdec(knows=False), [True], "FFmpeg's decoder h264 runs on the CPU only"),
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
        (FakeNvdec(knows=False), "cannot be decoded on the GPU: FFmpeg's decoder h264 runs on the CPU only; use"),
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
    writer = threading.Thread(target=lambda: pipe.write_bytes(film.read_bytes()), daemon=True)
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


class FakeContext:
    """Of engine.device.Device, what a source uses."""

    def __init__(self, nvdec: FakeNvdec, index: int = 0) -> None:
        self.nvdec, self.index = nvdec, index

    @contextmanager
    def current(self) -> Iterator[None]:
        self.nvdec.current = True
        yield
        self.nvdec.current = False


def pictures_of(path: Path, nvdec: FakeNvdec, **options: Any) -> list[Frame]:
    """The frames of a reader that takes them on the device."""
    with open_source(path, **options) as source:
        source.leave_on(FakeContext(nvdec))  # type: ignore[arg-type]
        return list(source)


def read(rows: Rows) -> np.ndarray:
    """(count, pitch) bytes, read where they are said to be: here, host memory."""
    start = ctypes.cast(rows.pointer, ctypes.POINTER(ctypes.c_uint8))
    return np.ctypeslib.as_array(start, (rows.count, rows.pitch))


def shown(surface: Any) -> np.ndarray:
    """(H, W, 3) BGR levels that `preprocess_nv12` gives, at scale 1."""
    w, h = surface.wh
    frame = np.zeros((h + (h + 1) // 2, w + w % 2), np.uint8)
    frame[:h, :w] = read(surface.luma)[:, :w]
    frame[h:] = read(surface.chroma)[:, : surface.chroma.width_bytes]
    return levels_of(frame, surface)


def levels_of(frame: np.ndarray, surface: Any) -> np.ndarray:
    w, h = surface.wh
    out = np.zeros((3, h, w), np.float32)
    levels: dict[str, Any] = {"mean": (0, 0, 0), "std": (1 / 255, 1 / 255, 1 / 255)}
    preprocess_nv12(frame, out, frame_wh=surface.wh, colour=surface.colour, scale=1, center=(w / 2, h / 2), **levels)
    return out[::-1].transpose(1, 2, 0)


@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("matrix", MATRICES)
def test_pictures_that_stay_on_the_device_are_what_software_decodes(tmp_path, monkeypatch, matrix, full_range):
    film = coloured_film(tmp_path / "a.mkv", pix_fmt="yuv420p", matrix=matrix, full_range=full_range)
    on_cpu = frames_of(film, decoder="cpu")
    nvdec = FakeNvdec().use(monkeypatch)
    frames = pictures_of(film, nvdec)
    assert nvdec.opened == [True, True]  # the device is known only when the pipeline runs
    assert nvdec.contexts == [False, True]
    for frame, wanted in zip(frames, on_cpu, strict=True):
        surface: Any = frame.picture
        assert not isinstance(surface, np.ndarray)
        assert surface.colour == Colour("bt709" if matrix == "bt709" else "bt601", full_range)
        assert frame.wh == wanted.wh
        assert np.abs(shown(surface) - wanted.image).max() <= 3
    assert_same(frames, on_cpu)  # by `image`, copied to the host


def test_odd_sides_stay_on_the_device(tmp_path, monkeypatch):
    film = coloured_film(tmp_path / "a.webm", pix_fmt="yuv420p", matrix="bt709", full_range=False, wh=(65, 49))
    on_cpu = frames_of(film, decoder="cpu")
    frames = pictures_of(film, FakeNvdec().use(monkeypatch))
    surface: Any = frames[0].picture
    assert (surface.luma.width_bytes, surface.luma.count) == (65, 49)
    assert (surface.chroma.width_bytes, surface.chroma.count) == (66, 25)
    assert_same(frames, on_cpu)


def test_pictures_of_another_gpu_come_to_the_host(tmp_path, monkeypatch):
    film = write_clip(tmp_path / "a.mp4", 3, wh=(96, 64), picture=picture)
    nvdec = FakeNvdec().use(monkeypatch)
    with open_source(film, gpu=1) as source:
        source.leave_on(FakeContext(nvdec, 0))  # type: ignore[arg-type]
        assert all(isinstance(frame.picture, np.ndarray) for frame in source)


@pytest.mark.parametrize("kind", ["rotated", "mirrored", "interlaced", "10 bits", "cropped"])
def test_pictures_that_the_kernel_cannot_show_come_to_the_host(tmp_path, monkeypatch, kind):
    film = tmp_path / "a.mp4"
    if kind == "rotated":
        write_clip(film, 3, wh=(96, 64), rotation=90, picture=picture)
    elif kind == "mirrored":  # upside down: its rotation is 0
        write_clip(film, 3, wh=(96, 64), matrix=(1, 0, 0, -1), picture=picture)
    elif kind == "interlaced":
        interlaced_film(film)
    elif kind == "10 bits":
        film = coloured_film(tmp_path / "a.mkv", pix_fmt="yuv420p10le", matrix="bt709", full_range=False)
    else:
        cropped_film(film)
    on_cpu = frames_of(film, decoder="cpu")
    frames = pictures_of(film, FakeNvdec().use(monkeypatch))
    assert all(isinstance(frame.picture, np.ndarray) for frame in frames)
    assert_same(frames, on_cpu)


def test_a_folder_of_videos_stays_on_the_device_unless_the_gpu_does_not_take_it(tmp_path, monkeypatch):
    for name in ("a", "b"):
        write_clip(tmp_path / f"{name}.mp4", 3, wh=(96, 64), picture=picture)
    on_cpu = frames_of(tmp_path, decoder="cpu")
    frames = pictures_of(tmp_path, FakeNvdec().use(monkeypatch))
    assert [type(frame.picture).__name__ for frame in frames] == ["DecodedSurface"] * 6
    assert_same(frames, on_cpu)
    with pytest.MonkeyPatch.context() as patch:
        assert_same(pictures_of(tmp_path, FakeNvdec(takes=False).use(patch)), on_cpu)


def test_a_picture_is_copied_to_the_host_once_and_a_gpu_that_fails_is_named(tmp_path, monkeypatch):
    film = write_clip(tmp_path / "a.mp4", 2, wh=(96, 64), picture=picture)
    first, second = pictures_of(film, FakeNvdec().use(monkeypatch))
    assert first.image is first.image

    def fails(*_: object, **__: object) -> None:
        raise av.error.ExternalError(1, "illegal memory access")

    monkeypatch.setattr("tests.pipeline.fake_nvdec._Reformatter.reformat", fails)
    with pytest.raises(
        SourceError, match=r"a picture of .*a\.mp4 cannot be copied from the GPU: illegal memory access"
    ):
        _ = second.image
    assert first.image.shape == (64, 96, 3)


def test_a_device_step_takes_a_videos_pictures_where_they_are(tmp_path, monkeypatch):
    """From the file to the people: the fake device's copies read FFmpeg's memory."""
    film = write_clip(tmp_path / "a.mp4", 8, wh=(96, 64), picture=lambda i: np.full((64, 96, 3), 20 + 20 * i, np.uint8))
    FakeNvdec().use(monkeypatch)
    copy_rows = FakeStream.copy_rows

    def copy_from_memory(stream: FakeStream, target: Any, first: int, rows: Rows) -> None:
        luma = first % target.shape[1] == 0
        # U and V become Y: the fake kernel compares a frame's first byte with its last
        there = read(rows) if luma else np.repeat(target.values[:, :1, :1], rows.pitch)[None].repeat(rows.count, 0)
        copy_rows(stream, target, first, replace(rows, pointer=lambda: there))  # type: ignore[arg-type]

    monkeypatch.setattr(FakeStream, "copy_rows", copy_from_memory)
    with PosePipeline(step=make_step(FakeDevice(eager=True))) as pose:
        results = list(pose.run(open_source(film)))
    lumas = [round(float(result.people.scores[0]) * 255) for result in results]
    assert lumas == pytest.approx([16 + (20 + 20 * i) * 219 / 255 for i in range(8)], abs=3)
    assert not any(isinstance(result.frame.picture, np.ndarray) for result in results)


@pytest.mark.gpu
@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv420p10le"])
def test_nvdec_gives_what_software_gives(tmp_path, caplog, pix_fmt, full_range):
    """NVDEC takes neither 10 bits nor, on some GPUs, interlaced pictures: those come from software."""
    films = [
        coloured_film(tmp_path / "a.mkv", pix_fmt=pix_fmt, matrix="bt709", full_range=full_range, wh=(640, 360)),
        write_clip(tmp_path / "b.mp4", 9, wh=(320, 240), rotation=90, picture=lambda i: picture(i, (320, 240))),
        interlaced_film(tmp_path / "c.mp4"),
    ]
    must_be_gpu = {"b.mp4"} if pix_fmt == "yuv420p10le" else {"a.mkv", "b.mp4"}
    for film in films:
        decoder = "gpu" if film.name in must_be_gpu else "auto"
        assert_same(frames_of(film, decoder=decoder), frames_of(film, decoder="cpu"))


@pytest.mark.gpu
def test_nvdecs_pictures_stay_on_the_device_beside_the_networks_context(tmp_path):
    """The context is made first, with flags that FFmpeg would not have chosen."""
    film = coloured_film(tmp_path / "a.mkv", pix_fmt="yuv420p", matrix="bt709", full_range=False, wh=(640, 360))
    on_cpu = frames_of(film, decoder="cpu")
    with Device() as device, open_source(film, decoder="gpu") as source:
        source.leave_on(device)
        frames = list(source)
        assert not any(isinstance(frame.picture, np.ndarray) for frame in frames)
        assert_same(frames, on_cpu)
        with device.current():
            stream, event = device.stream(), device.event()
            copied = device.empty((360 * 3 // 2, 640), np.uint8)
            back = device.pinned(copied.shape, np.uint8)
            for frame, wanted in zip(frames, on_cpu, strict=True):
                surface: Any = frame.picture
                event.record(None)
                stream.wait_for(event)
                stream.copy_rows(copied, 0, surface.luma)
                stream.copy_rows(copied, 360, surface.chroma)
                stream.download(back.array, copied)
                stream.synchronize()
                assert np.abs(levels_of(back.array.copy(), surface) - wanted.image).max() <= 3
        frames.clear()
