"""VideoSink on a GPU that encodes, that does not take the video, and that is not there."""

from __future__ import annotations

import logging
from pathlib import Path

import av
import numpy as np
import pytest

from core.errors import SinkError
from pipeline.hardware import VideoUnit, find_encoder
from pipeline.sinks import FolderSink, VideoSink
from pipeline.sinks.outputs import open_sinks
from pipeline.sources import open_source
from pipeline.types import Frame, People, Result
from tests.pipeline.fakes import write_clip

NO_ENCODER = not find_encoder().on_gpu
without_nvenc = pytest.mark.skipif(not NO_ENCODER, reason="a GPU encodes here")


@pytest.fixture
def claimed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU that encodes is claimed to be there; FFmpeg's NVENC is what it is."""
    monkeypatch.setattr("pipeline.sinks.video.find_encoder", lambda choice, gpu: VideoUnit(choice != "cpu", "claimed"))


def encoding_by(monkeypatch: pytest.MonkeyPatch, codec: str) -> None:
    """What NVENC would encode is encoded by this codec of FFmpeg's."""
    monkeypatch.setattr("pipeline.sinks.video.nvenc_for", lambda wh: codec)
    monkeypatch.setattr("pipeline.sinks.video.NVENC", {"bf": "0"})


def copy(clip: Path, out: Path, **options: str) -> None:
    with open_source(clip, decoder="cpu") as source, VideoSink(out, **options) as sink:  # type: ignore[arg-type]
        for frame in source:
            sink.write(Result(frame, People.nobody()), frame.image)


def shades(path: Path) -> list[int]:
    with av.open(str(path)) as container:
        return [round(float(frame.to_ndarray(format="bgr24").mean()) / 20) for frame in container.decode(video=0)]


@without_nvenc
def test_a_video_that_nvenc_does_not_take_is_encoded_on_the_cpu(tmp_path, claimed, caplog):
    clip, out = write_clip(tmp_path / "a.mp4", 6), tmp_path / "out.mp4"
    with caplog.at_level(logging.WARNING):
        copy(clip, out)
    assert shades(out) == [0, 1, 2, 3, 4, 5]
    why = "h264_nvenc does not take 64x48 (Operation not permitted)"
    assert caplog.messages == [f"{out} is encoded on the CPU, not on the GPU: {why}"]


@without_nvenc
def test_if_it_must_be_the_gpu_that_is_an_error_and_leaves_no_file(tmp_path, claimed):
    clip, out = write_clip(tmp_path / "a.mp4", 6), tmp_path / "out.mp4"
    with pytest.raises(SinkError) as caught:
        copy(clip, out, encoder="gpu")
    words = "h264_nvenc does not take 64x48 (Operation not permitted); use --encoder auto or cpu"
    assert str(caught.value) == f"{out}: {words}"
    assert not out.exists()


@without_nvenc
@pytest.mark.parametrize("save", ["out.mp4", "folder"])
def test_a_gpu_that_is_not_there_is_refused_before_the_file_is_made(tmp_path, save):
    def write() -> None:
        (sink,) = open_sinks(save=tmp_path / save, json=None, show=None, encoder="gpu")
        with sink:
            frame = Frame(np.zeros((48, 64, 3), np.uint8), source="a.avi")
            sink.write(Result(frame, People.nobody()), frame.image)

    with pytest.raises(SinkError, match="no GPU encodes videos here"):
        write()
    assert list(tmp_path.glob("**/*.mp4")) == []


@pytest.mark.parametrize(
    ("suffix", "codec", "tag"),
    [(".mp4", "libx264", "avc1"), (".mp4", "libx265", "hvc1"), (".mov", "libx265", "hvc1"), (".mkv", "libx265", None)],
)
def test_the_copy_of_the_other_encoder_keeps_every_frame_and_plays_everywhere(  # noqa: PLR0917
    tmp_path, claimed, monkeypatch, caplog, suffix, codec, tag
):
    encoding_by(monkeypatch, codec)
    clip, out = write_clip(tmp_path / "a.mp4", 6), tmp_path / f"out{suffix}"
    copy(clip, out)
    assert shades(out) == [0, 1, 2, 3, 4, 5]
    with av.open(str(out)) as container:
        context = container.streams.video[0].codec_context
        assert context.name == {"libx264": "h264", "libx265": "hevc"}[codec]
        assert tag is None or context.codec_tag == tag
    assert caplog.messages == []


def test_each_file_of_a_folder_is_encoded_as_asked(tmp_path, claimed, monkeypatch):
    encoding_by(monkeypatch, "libx265")
    for encoder, name in [("auto", "hevc"), ("cpu", "h264")]:
        (sink,) = open_sinks(save=tmp_path / encoder, json=None, show=None, encoder=encoder)  # type: ignore[arg-type]
        assert isinstance(sink, FolderSink)
        with sink:
            for i in range(3):
                frame = Frame(np.zeros((48, 64, 3), np.uint8), i, i / 10, 0.0, "a.avi")
                sink.write(Result(frame, People.nobody()), frame.image)
        with av.open(str(tmp_path / encoder / "a.mp4")) as container:
            assert container.streams.video[0].codec_context.name == name


@pytest.mark.gpu
def test_nvenc_or_its_way_back_writes_every_frame(tmp_path):
    """Cards of the A100 and H100 class have no encoder."""
    clip = write_clip(tmp_path / "a.mp4", 6, wh=(640, 480))
    for encoder in ("auto", "gpu") if find_encoder().on_gpu else ("auto",):
        copy(clip, tmp_path / f"{encoder}.mp4", encoder=encoder)
        assert shades(tmp_path / f"{encoder}.mp4") == [0, 1, 2, 3, 4, 5]
