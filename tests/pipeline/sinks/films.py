"""Films with sound, and what their copies hold."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

RATE, FPS = 16_000, 25
CREATED = "2020-02-03T04:05:06.000000Z"
CHAPTERS = [(0, 1000, "one"), (1000, 2000, "two")]


def write_film(
    path: Path,
    *,
    codec: str = "aac",
    seconds: int = 2,
    start: int = 0,
    lead: int = 0,
    tail: int = 0,
    sample_aspect_ratio: Fraction | None = None,
    rotation: int = 0,
    tracks: int = 1,
    rate: int = RATE,
    layout: str = "stereo",
) -> Path:
    """A grey clip of 64x48 with a tone, chapters, a title and a date. start: of its first frame, in frames.
    lead: frames by which the sound begins before the pictures. tail: seconds by which it is longer.
    """
    with av.open(str(path), "w") as film:
        video = film.add_stream("libx264", rate=FPS)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        if sample_aspect_ratio is not None:
            video.codec_context.sample_aspect_ratio = sample_aspect_ratio
        if rotation:
            video.set_display_rotation(rotation)
        sounds: list[Any] = [film.add_stream(codec, rate=rate, layout=layout) for _ in range(tracks)]
        for sound, language in zip(sounds, ("deu", "eng"), strict=False):
            sound.metadata["language"] = language
        film.metadata.update({"title": "A walk", "creation_time": CREATED})
        film.set_chapters([
            {"id": n, "start": a, "end": b, "time_base": Fraction(1, 1000), "metadata": {"title": title}}
            for n, (a, b, title) in enumerate(CHAPTERS, 1)
        ])  # fmt: skip
        for index in range(seconds * FPS):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), index % 256, np.uint8), "bgr24")
            frame.pts, frame.time_base = start + index, Fraction(1, FPS)
            film.mux(video.encode(frame))
        tone = (np.sin(np.arange((seconds + tail) * rate) * 2 * np.pi * 440 / rate) * 8000).astype(np.int16)
        for sound in sounds:
            for at in range(0, len(tone), 1024):
                channels = sound.layout.nb_channels
                piece = av.AudioFrame.from_ndarray(np.repeat(tone[at : at + 1024], channels)[None], "s16", layout)
                piece.rate, piece.pts = rate, (start - lead) * rate // FPS + at
                piece.time_base = Fraction(1, rate)
                film.mux(sound.encode(piece))
        film.mux(video.encode(None))
        for sound in sounds:
            film.mux(sound.encode(None))
    return path


def loudness(path: Path, *, track: int = 0) -> tuple[float, float, float]:
    """The start and end of the sound in seconds, and its root mean square."""
    with av.open(str(path)) as film:
        frames = list(film.decode(film.streams.audio[track]))
    samples = np.concatenate([frame.to_ndarray().astype(np.float64).ravel() for frame in frames])
    scale = 32768 if frames[0].format.name.startswith("s16") else 1
    first, last = frames[0], frames[-1]
    level = float(np.sqrt(((samples / scale) ** 2).mean()))
    return float(first.time or 0), float(last.time or 0) + last.samples / last.sample_rate, level


def kept(path: Path) -> tuple[list[str], list[float]]:
    """The codecs of the sound, and the times of the pictures in seconds."""
    with av.open(str(path)) as film:
        return [s.codec_context.name for s in film.streams.audio], [f.time for f in film.decode(video=0)]
