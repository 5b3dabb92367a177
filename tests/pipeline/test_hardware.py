"""What decodes and encodes: FFmpeg as it is here, behind a GPU that is claimed to be there; and none."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import av
import numpy as np
import pytest

from core.errors import SinkError, SourceError
from engine.gpu import Gpu, find_gpu
from pipeline import hardware
from pipeline.hardware import CHOICES, VideoUnit, find_decoder, find_encoder, nvdec, nvenc_for

CLAIMED = Gpu("Claimed 1", (9, 0), 80 << 30, (13, 0))
NO_GPU = find_gpu()[0] is None
without_gpu = pytest.mark.skipif(not NO_GPU, reason="there is a GPU here")


@pytest.fixture(autouse=True)
def _tried_anew() -> Iterator[None]:
    """Nothing that one test found serves another."""
    for tried in (hardware._tried_decoder, hardware._tried_encoder):
        tried.cache_clear()
    yield
    for tried in (hardware._tried_decoder, hardware._tried_encoder):
        tried.cache_clear()


@pytest.fixture
def claimed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """find_gpu finds a GPU; the list has the index of each search."""
    searched: list[int] = []

    def find(index: int = 0) -> tuple[Gpu, str]:
        searched.append(index)
        return CLAIMED, str(CLAIMED)

    monkeypatch.setattr(hardware, "find_gpu", find)
    return searched


@without_gpu
@pytest.mark.parametrize("find", [find_decoder, find_encoder])
def test_without_a_driver_it_is_the_cpu_and_says_why(find):
    unit = find()
    assert not unit.on_gpu
    assert str(unit) == f"on the CPU: {find_gpu()[1]}"


@without_gpu
def test_a_gpu_that_is_not_there_cannot_be_chosen():
    why = find_gpu()[1]
    with pytest.raises(SourceError) as decoding:
        find_decoder("gpu")
    assert str(decoding.value) == f"--decoder gpu: no GPU decodes videos here: {why}; use --decoder auto or cpu"
    with pytest.raises(SinkError) as encoding:
        find_encoder("gpu")
    assert str(encoding.value) == f"--encoder gpu: no GPU encodes videos here: {why}; use --encoder auto or cpu"


@pytest.mark.parametrize("find", [find_decoder, find_encoder])
def test_the_cpu_is_taken_without_a_look_at_the_gpu(find, claimed):
    unit = find("cpu")
    assert not unit.on_gpu
    assert unit.why.endswith("coder cpu")
    assert claimed == []


@pytest.mark.parametrize("find", [find_decoder, find_encoder])
def test_another_word_is_refused(find):
    with pytest.raises(ValueError, match="'GPU'; expected one of auto, cpu, gpu"):
        find("GPU")
    assert CHOICES == ("auto", "cpu", "gpu")


@without_gpu
def test_a_gpu_whose_driver_does_neither_is_named_with_ffmpegs_reason(claimed):
    """FFmpeg itself fails here: it finds no driver."""
    assert find_decoder().why == "Claimed 1 decoded no test video: Operation not permitted"
    words = "Claimed 1 has no video encoder, or its driver does not: Operation not permitted"
    assert find_encoder().why == words


@without_gpu
def test_each_is_tried_once_a_gpu(claimed):
    for gpu in (0, 1, 0, 1):
        find_decoder("auto", gpu)
        find_encoder("auto", gpu)
    assert claimed == [0, 0, 1, 1]


def decoding_as(kind: str, pix_fmt: str) -> Any:
    """An `av.open` that decodes the test video, and says it did so in `pix_fmt`, giving frames of format `kind`."""
    real: Any = av.open

    class Codec:
        def __init__(self) -> None:
            self.pix_fmt, self.thread_count = pix_fmt, 0

    class Container:
        def __init__(self, container: Any) -> None:
            self.wrapped, self.streams = container, self
            self.codec_context = Codec()
            self.video = [self]

        def decode(self, video: int) -> Iterator[av.VideoFrame]:
            for frame in self.wrapped.decode(video=video):
                assert self.codec_context.thread_count == 1
                assert np.ptp(frame.to_ndarray()[: hardware.TRIAL_SIDE]) == 0
                yield frame.reformat(format=kind)

        def __enter__(self) -> Any:
            return self

        def __exit__(self, *exc: object) -> None:
            self.wrapped.close()

    def open_(file: Any, mode: str | None = None, **options: Any) -> Any:
        if mode == "w":
            return real(file, mode, **options)
        assert not options["hwaccel"].allow_software_fallback
        return Container(real(file, mode))

    return open_


@pytest.mark.parametrize(
    ("kind", "pix_fmt", "expected"),
    [
        ("nv12", "cuda", VideoUnit(True, "NVDEC of Claimed 1")),
        ("yuv420p", "yuv420p", VideoUnit(False, "Claimed 1 decoded no test video: FFmpeg fell back to software")),
        ("yuv420p", "cuda", VideoUnit(False, "Claimed 1 decoded no test video: FFmpeg fell back to software")),
    ],
)
def test_the_test_videos_frame_shows_what_decoded_it(claimed, monkeypatch, kind, pix_fmt, expected):
    monkeypatch.setattr("pipeline.hardware.av.open", decoding_as(kind, pix_fmt))
    assert find_decoder() == expected
    if expected.on_gpu:
        assert find_decoder("gpu") == expected
        assert str(expected) == "on the GPU (NVDEC of Claimed 1)"


def test_an_encoder_that_opens_is_used_with_the_options_of_every_video(claimed, monkeypatch):
    opened: list[Any] = []

    class Encoder:
        def open(self) -> None:
            opened.append(self)

    def create(name: str, mode: str) -> Encoder:
        assert (name, mode) == ("h264_nvenc", "w")
        return Encoder()

    encoders = type("CodecContext", (), {"create": staticmethod(create)})
    monkeypatch.setattr("pipeline.hardware.av.CodecContext", encoders)
    assert find_encoder("gpu", 3) == VideoUnit(True, "NVENC of Claimed 1")
    assert opened[0].options == {**hardware.NVENC, "gpu": "3"}


def test_every_option_of_nvenc_is_one_that_ffmpeg_knows():
    for name in ("h264_nvenc", "hevc_nvenc"):
        known = av.CodecContext.create(name, "w").supported_options
        options = {option.name: option for option in (*known.generic, *known.private)}
        for option, value in {**hardware.NVENC, "gpu": "0"}.items():
            assert option in options, option
            choices = {choice.name for choice in options[option].choices}
            assert value.isdecimal() or value in choices, (option, value)


@pytest.mark.parametrize(
    ("wh", "name"), [((640, 480), "h264_nvenc"), ((4096, 2160), "h264_nvenc"), ((2160, 4098), "hevc_nvenc")]
)
def test_large_pictures_are_coded_as_hevc(wh, name):
    assert nvenc_for(wh) == name


def test_pictures_that_stay_are_made_in_the_context_that_is_current():
    """FFmpeg refuses a primary context with other flags than its own; PyAV asks for it unless told not to."""
    stays, comes = nvdec(2, stays=True), nvdec(2)
    assert (stays.is_hw_owned, stays.device_id, stays.options) == (True, 2, {"primary_ctx": "0", "current_ctx": "1"})
    assert (comes.is_hw_owned, comes.options) == (False, {})


@pytest.mark.gpu
def test_a_gpu_decodes_and_what_it_says_of_encoding_is_a_line():
    assert find_decoder("gpu").why.startswith("NVDEC of ")
    assert "\n" not in str(find_encoder())
