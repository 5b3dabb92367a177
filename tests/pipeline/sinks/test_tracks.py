"""An annotated copy keeps the source's sound, chapters and metadata."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import pytest

from tests.pipeline.sinks.films import CHAPTERS, CREATED, FPS, loudness, write_film


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
