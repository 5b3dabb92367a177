"""Sound that a copy holds in another form than its source."""

from __future__ import annotations

import av
import pytest

from tests.pipeline.sinks.films import FPS, kept, loudness, write_film


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
    assert kept(out)[1] == pytest.approx([index / FPS for index in range(2 * FPS)], abs=0.001)
    starts, ends, _ = loudness(out)
    assert (starts, ends) == pytest.approx((0, 2 - lead / FPS), abs=0.13)


def test_sound_of_an_unknown_codec_is_left_out_with_a_warning(tmp_path, copied, caplog):
    film = write_film(tmp_path / "film.mkv")
    film.write_bytes(film.read_bytes().replace(b"A_AAC", b"A_XXX"))
    sounds, times = kept(copied(film, "copy.mp4"))
    assert (sounds, len(times)) == ([], 2 * FPS)
    words = f"{film}: its stream 1, sound, cannot be copied and is left out"
    assert [text for text in caplog.messages if "sound" in text] == [words]
