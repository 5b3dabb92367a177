"""The lines about decoder and encoder: only what the run uses, and a refusal of what it cannot use."""

from __future__ import annotations

from pathlib import Path

import pytest

from commands.video import describe_video
from core.errors import SinkError, SourceError
from engine.gpu import find_gpu

without_gpu = pytest.mark.skipif(find_gpu()[0] is not None, reason="there is a GPU here")


@pytest.mark.parametrize(
    ("parts", "save", "expected"),
    [
        (["a.mp4"], None, ["decoded"]),
        (["rtsp://host/a"], "out.mp4", ["decoded", "encoded"]),
        (["0"], "out.mp4", ["encoded"]),
        (["browser"], None, []),
        (["a.jpg"], "b.jpg", []),
        (["a.jpg", "b.png"], "folder", []),
        (["a.jpg", "b.mkv"], "folder", ["decoded", "encoded"]),
    ],
)
def test_a_line_for_each_that_is_used(parts, save, expected):
    lines = describe_video(parts, Path(save) if save else None, decoder="auto", encoder="cpu")
    assert [line.split()[2] for line in lines] == expected
    assert all(line.startswith("videos are ") for line in lines)
    if "encoded" in expected:
        assert lines[-1] == "videos are encoded on the CPU: --encoder cpu"


@without_gpu
def test_a_gpu_that_is_not_there_is_refused():
    with pytest.raises(SourceError, match="no GPU decodes videos here"):
        describe_video(["a.mp4"], None, decoder="gpu", encoder="auto")
    with pytest.raises(SinkError, match="no GPU encodes videos here"):
        describe_video(["a.mp4"], Path("b.mp4"), decoder="auto", encoder="gpu")


@pytest.mark.parametrize(
    ("decoder", "encoder", "words"),
    [
        ("gpu", "auto", "--decoder gpu is for video files and streams, and no source is one; omit it"),
        ("auto", "gpu", "--encoder gpu is for annotated videos, and none is saved; omit it"),
    ],
)
def test_a_gpu_that_nothing_would_use_is_refused(decoder, encoder, words):
    with pytest.raises(ValueError, match=words):
        describe_video(["a.jpg"], Path("b.jpg"), decoder=decoder, encoder=encoder)
