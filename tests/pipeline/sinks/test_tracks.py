"""An annotated copy keeps the source's sound, chapters and metadata."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

import run_video
from tests.pipeline.onnx_models import write_blob_model

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


@pytest.fixture
def copied(tmp_path) -> Callable[..., Path]:
    """The annotated copy of a film."""
    model = write_blob_model(tmp_path / "blobs.onnx")

    def copy(film: Path, name: str, *arguments: str) -> Path:
        out: Path = tmp_path / name
        assert run_video.main([str(film), "--model", str(model), "--save", str(out), *arguments]) == 0
        return out

    return copy


def loudness(path: Path, *, track: int = 0) -> tuple[float, float, float]:
    """The start and end of the sound in seconds, and its root mean square."""
    with av.open(str(path)) as film:
        frames = list(film.decode(film.streams.audio[track]))
    samples = np.concatenate([frame.to_ndarray().astype(np.float64).ravel() for frame in frames])
    scale = 32768 if frames[0].format.name.startswith("s16") else 1
    first, last = frames[0], frames[-1]
    level = float(np.sqrt(((samples / scale) ** 2).mean()))
    return float(first.time or 0), float(last.time or 0) + last.samples / last.sample_rate, level


@pytest.mark.parametrize(
    ("codec", "source", "copy"),
    [
        ("aac", "film.mp4", "copy.mp4"),
        ("pcm_s16le", "film.mkv", "copy.mkv"),
        ("pcm_s16le", "film.mkv", "copy.mp4"),  # coded anew
        ("mp3", "film.mkv", "copy.mov"),
    ],
)
def test_sound_chapters_and_metadata_are_kept(tmp_path, copied, codec, source, copy):
    film = write_film(tmp_path / source, codec=codec)
    out = copied(film, copy)
    starts, ends, level = loudness(out)
    assert starts == pytest.approx(0, abs=0.08)
    assert ends == pytest.approx(2, abs=0.13)  # two frames of AAC more, where it is coded anew
    assert level == pytest.approx(loudness(film)[2], rel=0.05)
    with av.open(str(out)) as kept:
        chapters = [(c["start"] * (c["time_base"] or 0), c["metadata"]["title"]) for c in kept.chapters()]
        assert chapters == [(start / 1000, title) for start, _, title in CHAPTERS]
        assert (kept.metadata["title"], kept.metadata["creation_time"]) == ("A walk", CREATED)
        assert sum(1 for _ in kept.decode(video=0)) == 2 * FPS


def test_sound_stays_with_its_pictures_where_the_film_does_not_begin_at_zero(tmp_path, copied):
    """The pictures and the sound of the copy start at 0, synchronously."""
    out = copied(write_film(tmp_path / "film.mkv", start=75), "copy.mkv")
    starts, ends, _ = loudness(out)
    assert starts == pytest.approx(0, abs=0.08)
    assert ends == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize(("before", "name"), [(0, "copy.mkv"), (0, "copy.mp4"), (250, "copy.mkv")])  # mp4: coded anew
def test_sound_stays_with_its_pictures_where_timestamps_restart(tmp_path, copied, before, name):
    """before: how much later in its broadcast the first recording is, in frames; FFmpeg takes the second for a wrap if
    it is long."""
    parts = [write_film(tmp_path / f"{start}.ts", codec="mp2", start=start) for start in (before * FPS, 0)]
    joined = tmp_path / "joined.ts"
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    out = copied(joined, name)
    starts, ends, level = loudness(out)
    assert starts == pytest.approx(0, abs=0.08)
    assert ends == pytest.approx(4, abs=0.13)
    assert level == pytest.approx(loudness(parts[0])[2], rel=0.05)
    with av.open(str(out)) as kept:
        times = [float(frame.time or 0) for frame in kept.decode(video=0)]
    assert len(times) == 4 * FPS
    assert np.diff(times)[1:] == pytest.approx(1 / FPS, abs=0.002)


def test_a_copy_of_a_part_has_the_sound_of_that_part(tmp_path, copied):
    _, ends, _ = loudness(copied(write_film(tmp_path / "film.mp4"), "copy.mp4", "--limit", "20"))
    assert ends == pytest.approx(0.8, abs=0.15)


def test_no_audio_leaves_it_out(tmp_path, copied):
    with av.open(str(copied(write_film(tmp_path / "film.mp4"), "copy.mp4", "--no-audio"))) as kept:
        assert not kept.streams.audio
        assert len(kept.chapters()) == 2


def test_every_track_is_kept(tmp_path, copied):
    out = copied(write_film(tmp_path / "film.mp4", tracks=2), "copy.mp4")
    assert loudness(out, track=0)[2] > 0.05
    assert loudness(out, track=1)[2] > 0.05


@pytest.mark.parametrize(("rotation", "expected"), [(0, Fraction(16, 15)), (90, Fraction(15, 16))])
def test_pixels_keep_their_aspect(tmp_path, copied, rotation, expected):
    film = write_film(tmp_path / "film.mp4", sample_aspect_ratio=Fraction(16, 15), rotation=rotation)
    with av.open(str(copied(film, "copy.mp4"))) as kept:
        assert kept.streams.video[0].sample_aspect_ratio == expected


def test_sound_that_breaks_costs_no_picture(tmp_path, copied):
    film = write_film(tmp_path / "film.mkv")
    content = bytearray(film.read_bytes())
    rng = np.random.default_rng(0)
    whole = copied(film, "whole.mkv")
    with av.open(str(film)) as opened:
        places = [(p.pos, p.size) for p in opened.demux(opened.streams.audio[0]) if p.pos is not None and p.size]
    for pos, size in places[len(places) // 2 :]:
        content[pos + 8 : pos + size] = rng.bytes(max(0, size - 8))
    film.write_bytes(bytes(content))
    out = copied(film, "copy.mkv")
    with av.open(str(out)) as broken, av.open(str(whole)) as kept:
        assert sum(1 for _ in broken.decode(video=0)) == sum(1 for _ in kept.decode(video=0))


def kept(path: Path) -> tuple[list[str], list[float]]:
    """The codecs of the sound, and the times of the pictures in seconds."""
    with av.open(str(path)) as film:
        return [s.codec_context.name for s in film.streams.audio], [f.time for f in film.decode(video=0)]


TIMES = [index / FPS for index in range(2 * FPS)]


@pytest.mark.parametrize(
    ("codec", "source", "copy", "expected"),
    [
        ("aac", "film.ts", "copy.mp4", "aac"),
        ("aac", "film.ts", "copy.mkv", "aac"),
        ("ac3", "film.ts", "copy.mp4", "aac"),
        ("eac3", "film.mkv", "copy.mp4", "aac"),
        ("ac3", "film.mkv", "copy.mov", "aac"),
        ("ac3", "film.mkv", "copy.mkv", "ac3"),
        ("libopus", "film.mkv", "copy.mp4", "opus"),
        ("libopus", "film.mkv", "copy.mov", "aac"),
        ("flac", "film.mkv", "copy.mov", "aac"),
    ],
)
def test_sound_is_coded_anew_where_the_copy_cannot_hold_it(  # noqa: PLR0917
    tmp_path, copied, codec, source, copy, expected
):
    out = copied(write_film(tmp_path / source, codec=codec, rate=48_000), copy)
    assert kept(out)[0] == [expected]
    starts, ends, level = loudness(out)
    assert (starts, ends) == pytest.approx((0, 2), abs=0.1)
    assert level > 0.1


def test_aac_of_a_transport_stream_has_the_header_that_browsers_need(tmp_path, copied):
    with av.open(str(copied(write_film(tmp_path / "film.ts"), "copy.mp4"))) as film:
        assert film.streams.audio[0].codec_context.extradata == bytes([0b00010_100, 0b0_0010_000])  # LC, 16 kHz, stereo


@pytest.mark.parametrize(
    ("rate", "layout", "expected"),
    [
        (11_024, "mono", (11_025, "mono")),
        (192_000, "stereo", (96_000, "stereo")),
        (48_000, "5.1", (48_000, "5.1")),
        (48_000, "7.1.4", (48_000, "stereo")),
    ],
)
def test_sound_coded_anew_has_the_nearest_rate_and_its_channels(tmp_path, copied, rate, layout, expected):
    film = write_film(tmp_path / "film.mkv", codec="pcm_s16le", rate=rate, layout=layout)
    with av.open(str(copied(film, "copy.mp4"))) as out:
        assert (out.streams.audio[0].rate, out.streams.audio[0].layout.name) == expected
    assert loudness(tmp_path / "copy.mp4")[1] == pytest.approx(2, abs=0.25)


@pytest.mark.parametrize(("codec", "copy"), [("mp2", "copy.mp4"), ("eac3", "copy.mov")])
def test_a_damaged_packet_of_sound_coded_anew_ends_it_with_a_warning(tmp_path, copied, caplog, codec, copy):
    film = write_film(tmp_path / "film.mkv", codec=codec, rate=48_000)
    with av.open(str(film)) as opened:
        packets = [bytes(packet) for packet in opened.demux(audio=0) if packet.size]
    middle = packets[len(packets) // 2]
    film.write_bytes(film.read_bytes().replace(middle, b"\x55" * len(middle), 1))
    out = copied(film, copy)
    assert len(kept(out)[1]) == 2 * FPS
    assert 0.5 < loudness(out)[1] < 1.5
    assert [text for text in caplog.messages if "sound" in text] == [
        f"{film}: its sound ends early: Invalid data found when processing input"
    ]


@pytest.mark.parametrize(
    ("codec", "copy"), [("pcm_s16le", "a.mp4"), ("mp2", "a.mov"), ("aac", "a.mp4"), ("aac", "a.mkv")]
)
@pytest.mark.parametrize("lead", [0, 25])
def test_pictures_keep_their_times_whatever_sound_is_before_them(tmp_path, copied, codec, copy, lead):
    """AAC that is coded anew begins with a frame before its first sample."""
    out = copied(write_film(tmp_path / "film.mkv", codec=codec, start=25, lead=lead), copy)
    assert kept(out)[1] == pytest.approx(TIMES, abs=0.001)
    starts, ends, _ = loudness(out)
    assert (starts, ends) == pytest.approx((0, 2 - lead / FPS), abs=0.13)


@pytest.mark.parametrize("source", ["film.mkv", "film.mp4", "film.avi", "film.ts"])
@pytest.mark.parametrize(("arguments", "expected"), [((), 4.0), (("--limit", "20"), 0.8), (("--limit", "40"), 1.6)])
def test_sound_longer_than_the_pictures_is_cut_only_with_them(tmp_path, copied, source, arguments, expected):
    out = copied(write_film(tmp_path / source, tail=2), "copy.mp4", *arguments)
    assert loudness(out)[1] == pytest.approx(expected, abs=0.15)


def test_chapters_stay_with_their_pictures(tmp_path, copied):
    with av.open(str(copied(write_film(tmp_path / "film.mkv", start=30), "copy.mkv"))) as out:
        times = [float(c[at] * (c["time_base"] or 0)) for c in out.chapters() for at in ("start", "end")]
    assert times == pytest.approx([0, 0.8], abs=0.001)  # the first one ends before them, at 1 s of 1.2


def test_the_aspect_of_pixels_that_only_the_container_states_is_kept(tmp_path, copied):
    film = write_film(tmp_path / "film.mkv")
    # Matroska's elements: 64x48 pixels; then a display size of 96x48 in the place of what says nothing
    before = bytes.fromhex("e08a b08140 ba8130 54b28104 55ee8100 ec01000000000000020000")
    after = bytes.fromhex("e092 b08140 ba8130 54b08160 54ba8130 54b28100 ec850000000000")
    content = film.read_bytes()
    assert before in content
    film.write_bytes(content.replace(before, after))
    with av.open(str(copied(film, "copy.mp4"))) as out:
        assert out.streams.video[0].sample_aspect_ratio == Fraction(96, 64)


@pytest.mark.parametrize("copy", ["copy.mp4", "copy.mkv"])
def test_each_track_keeps_its_language(tmp_path, copied, copy):
    with av.open(str(copied(write_film(tmp_path / "film.mkv", tracks=2), copy))) as out:
        assert [stream.language for stream in out.streams.audio] == ["deu", "eng"]


def test_sound_of_an_unknown_codec_is_left_out_with_a_warning(tmp_path, copied, caplog):
    film = write_film(tmp_path / "film.mkv")
    film.write_bytes(film.read_bytes().replace(b"A_AAC", b"A_XXX"))
    sounds, times = kept(copied(film, "copy.mp4"))
    assert (sounds, len(times)) == ([], 2 * FPS)
    words = f"{film}: its stream 1, sound, cannot be copied and is left out"
    assert [text for text in caplog.messages if "sound" in text] == [words]
