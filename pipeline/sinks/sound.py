"""The tracks of sound of a copy: packets as they are where its format holds them, else coded anew as AAC."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import suppress
from fractions import Fraction
from functools import partial
from typing import TypeAlias

import av
from av.audio.stream import AudioStream
from av.bitstream import BitStreamFilterContext
from av.container import OutputContainer
from av.packet import Packet
from av.stream import Stream

# Sound that players of MP4 and MOV expect; anything else is coded anew there. Matroska holds all.
# Without AC-3 and E-AC-3: their muxer reads each packet, and a damaged one would fail with the pictures in its queue.
COMMON_AUDIO = frozenset({"aac", "alac", "flac", "mp3", "opus"})
# In the order of the index in AAC's headers (ISO/IEC 14496-3, table 1.18).
AAC_RATES = (96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350)
# Channel configurations of AAC (ISO/IEC 14496-3, table 1.19).
AAC_LAYOUTS = {"mono": 1, "stereo": 2, "3.0": 3, "4.0": 4, "5.0": 5, "5.1": 6}
# What FFmpeg takes sound for that states only the number of its channels.
UNNAMED_LAYOUTS = {
    f"{count} channels": name
    for count, name in enumerate(("mono", "stereo", "2.1", "4.0", "5.0", "5.1", "6.1", "7.1"), 1)
}
LOW_COMPLEXITY = 2  # AAC's object type


class Copied:
    """Sound as it is. Raises FFmpegError or ValueError if the container does not suit it."""

    def __init__(self, stream: AudioStream, container: OutputContainer) -> None:
        codec = stream.codec_context.codec.canonical_name
        any_codec = container.format.name == "matroska"
        if not any_codec and codec not in COMMON_AUDIO:
            raise ValueError(f"{codec} is uncommon in {container.format.name}")
        self.stream = container.add_stream_from_template(stream)
        self._filter = None
        if codec == "aac" and not any_codec:  # of MPEG-TS: each packet has the header that MP4 has once
            self._filter = BitStreamFilterContext("aac_adtstoasc", stream)
            if not stream.codec_context.extradata:
                self.stream.codec_context.extradata = _aac_header(stream)

    def packets(self, packet: Packet[Stream], origin_s: Fraction) -> list[Packet[Stream]]:
        """Of the copy, whose time 0 is `origin_s` of the source."""
        time_base = packet.time_base
        offset = round(origin_s / time_base)
        packet.pts = None if packet.pts is None else packet.pts - offset
        packet.dts = None if packet.dts is None else packet.dts - offset
        packets = [packet] if self._filter is None else self._filter.filter(packet)
        for item in packets:
            item.time_base, item.stream = time_base, self.stream
        return packets

    def flush(self) -> list[Packet[Stream]]:
        return []


class Recoded:
    """Sound coded anew. Raises FFmpegError or ValueError if AAC does not take it."""

    def __init__(self, stream: AudioStream, container: OutputContainer, *, layout: str | None = None) -> None:
        asked = stream.rate or 48_000  # unknown until a packet is decoded
        rate = min(AAC_RATES, key=lambda rate: abs(rate - asked))
        name = stream.layout.name
        self.stream = container.add_stream("aac", rate=rate, layout=layout or UNNAMED_LAYOUTS.get(name, name))

    def packets(self, packet: Packet[Stream], origin_s: Fraction) -> list[Packet[Stream]]:
        """Of the copy, whose time 0 is `origin_s` of the source."""
        return [coded for frame in packet.decode() for coded in self._coded(frame, origin_s)]

    def flush(self) -> list[Packet[Stream]]:
        return self.stream.encode(None)

    def _coded(self, frame: object, origin_s: Fraction) -> list[Packet[Stream]]:
        assert isinstance(frame, av.AudioFrame)
        if frame.pts is not None and frame.time_base is not None:
            frame.pts -= round(origin_s / frame.time_base)
        return self.stream.encode(frame)


Sound: TypeAlias = Copied | Recoded


def add_sound(stream: AudioStream, container: OutputContainer) -> Sound | None:
    """A track for this sound, copied if possible; None if its codec is unknown, or the container takes no form of it.

    Each form is tried in a scratch file, because a header that cannot be written would cost the pictures too: MOV does
    not hold Opus, for one.
    """
    if stream.codec_context is None:
        return None
    in_stereo = partial(Recoded, layout="stereo")
    kinds: tuple[Callable[[AudioStream, OutputContainer], Sound], ...] = (Copied, Recoded, in_stereo)
    for kind in kinds:
        with suppress(av.error.FFmpegError, ValueError):
            with av.open(io.BytesIO(), "w", format=container.format.name, options=container.options) as scratch:
                kind(stream, scratch)
                scratch.start_encoding()
            return kind(stream, container)
    return None


def _aac_header(stream: AudioStream) -> bytes:
    """AudioSpecificConfig (ISO/IEC 14496-3, 1.6.2.1). Raises ValueError for what needs more than two bytes."""
    if stream.profile != "LC" or stream.layout.name not in AAC_LAYOUTS or stream.rate not in AAC_RATES:
        raise ValueError(f"AAC {stream.profile} with {stream.layout.name} at {stream.rate} Hz has no short header")
    fields = LOW_COMPLEXITY << 11 | AAC_RATES.index(stream.rate) << 7 | AAC_LAYOUTS[stream.layout.name] << 3
    return fields.to_bytes(2, "big")
