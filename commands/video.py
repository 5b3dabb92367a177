"""Reports what decodes and encodes a command's videos; rejects a GPU that cannot, before the model is opened."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline.hardware import Choice, find_decoder, find_encoder
from pipeline.sinks import VIDEO_FORMATS
from pipeline.sinks.outputs import is_folder
from pipeline.sources import is_image
from pipeline.sources.opening import is_video


def describe_video(
    parts: Sequence[str], save: Path | None, *, decoder: Choice, encoder: Choice, gpu: int = 0
) -> list[str]:
    """One line about the decoder and one about the encoder, each only if the run uses it.

    parts: names of the sources. save: where annotated copies go. decoder, encoder, gpu: as the command's options.
    Raises SourceError or SinkError if "gpu" was chosen and is unavailable, ValueError if the run would not use it.
    """
    lines = []
    if any(is_video(part) for part in parts):
        lines.append(f"videos are decoded {find_decoder(decoder, gpu)}")
    elif decoder == "gpu":
        raise ValueError("--decoder gpu is for video files and streams, and no source is one; omit it")
    if save is not None and is_video_output(save, parts):
        lines.append(f"videos are encoded {find_encoder(encoder, gpu)}")
    elif encoder == "gpu":
        raise ValueError("--encoder gpu is for annotated videos, and none is saved; omit it")
    return lines


def is_video_output(save: Path, parts: Sequence[str]) -> bool:
    """Whether at least one annotated copy is a video."""
    if is_folder(save):
        return not all(is_image(part) for part in parts)
    return save.suffix.lower() in VIDEO_FORMATS
