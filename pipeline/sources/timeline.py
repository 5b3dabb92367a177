"""Timeline: one time for pictures and sound where a file's timestamps restart, as in joined recordings and on DVDs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction

from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet
from av.stream import Stream
from av.video.stream import VideoStream

LARGEST_STEP_BACK_S = Fraction(1, 10)  # as FFmpeg's: a smaller one is jitter
LARGEST_GAP_S = 12 * 3600  # half the range of MPEG's 33-bit timestamps, at whose end they start again
LONGEST_WAIT = 1000  # packets of sound that restarted where the pictures have not yet: they never will
TS_DISCONT = 0x200  # AVFMT_TS_DISCONT: a format in which timestamps may restart


class Timeline:
    """The times of a video's frames, in the order they are shown, from 0 on.

    Where timestamps restart, times go on after one interval.
    """

    def __init__(self, interval_s: Fraction) -> None:
        self._offset_s = Fraction(0)
        self._interval_s = interval_s
        self._time_s: Fraction | None = None
        self._stamp_s: Fraction | None = None

    def at(self, stamp_s: Fraction | None) -> Fraction:
        """The time of the next frame. stamp_s: its timestamp; None in a stream without, such as raw H.264."""
        next_s = Fraction(0) if self._time_s is None else self._time_s + self._interval_s
        if stamp_s is None:
            self._time_s = next_s
            return next_s
        if self._stamp_s is None or restarts(self._stamp_s, stamp_s):
            self._offset_s = next_s - stamp_s
        self._stamp_s = stamp_s
        self._time_s = stamp_s + self._offset_s
        return self._time_s


def interval_of(video: VideoStream) -> Fraction:
    """The seconds from frame to frame, on average."""
    return 1 / Fraction(video.average_rate or video.guessed_rate or 25)


def restarts(before_s: Fraction, after_s: Fraction) -> bool:
    """Whether the second of two timestamps is of another recording than the first."""
    return after_s < before_s - LARGEST_STEP_BACK_S or after_s > before_s + LARGEST_GAP_S


def continued_packets(container: InputContainer, sounds: Sequence[AudioStream]) -> Iterator[Packet[Stream]]:
    """The packets of the pictures and of these streams; where timestamps restart, both go on (`Timeline`)."""
    if container.format.flags & TS_DISCONT:
        yield from _Continued(container, sounds).packets()
    else:
        packets = container.demux(container.streams.video[0], *sounds)
        yield from (packet for packet in packets if packet.dts is not None)  # the last one is empty


class _Continued:
    """Finds the restarts in the packets of the pictures, which are read along.

    Near a join, packets of both recordings alternate: each stream of sound restarts for itself, and waits there until
    the pictures have restarted too, since its offset is theirs.
    """

    def __init__(self, container: InputContainer, sounds: Sequence[AudioStream]) -> None:
        self._container = container
        self._sounds = {sound.index: _Sound() for sound in sounds}
        self._video = container.streams.video[0]
        self._interval_s = interval_of(self._video)
        self._offsets_s = [Fraction(0)]  # of each recording
        self._decoded_s: Fraction | None = None
        self._end_s = Fraction(0)  # of the pictures so far

    def packets(self) -> Iterator[Packet[Stream]]:
        for packet in self._container.demux(self._video, *(self._container.streams[i] for i in self._sounds)):
            if packet.dts is None or packet.time_base is None:
                continue
            if packet.stream_index == self._video.index:
                if self._follow(packet.dts * packet.time_base, packet):
                    for sound in self._sounds.values():
                        yield from sound.released(self._offsets_s)
                shift = round(self._offsets_s[-1] / packet.time_base)
                packet.dts += shift
                packet.pts = None if packet.pts is None else packet.pts + shift
                yield packet
            else:
                yield from self._sounds[packet.stream_index].add(packet, self._offsets_s)
        for sound in self._sounds.values():
            yield from sound.released(self._offsets_s, end=True)

    def _follow(self, decoded_s: Fraction, packet: Packet[Stream]) -> bool:
        """Whether the pictures restart at this packet of theirs."""
        assert packet.time_base is not None
        shown_s = decoded_s if packet.pts is None else packet.pts * packet.time_base
        restarted = self._decoded_s is not None and restarts(self._decoded_s, decoded_s)
        if restarted:
            self._offsets_s.append(self._end_s - shown_s)
        self._decoded_s = decoded_s
        self._end_s = max(self._end_s, shown_s + self._offsets_s[-1] + self._interval_s)
        return restarted


class _Sound:
    """One stream of sound."""

    def __init__(self) -> None:
        self._recording: int | None = None
        self._decoded_s: Fraction | None = None  # of the newest packet, by the file
        self._free_s: Fraction | None = None  # no packet before it, by the continued time
        self._waiting: list[Packet[Stream]] = []

    def add(self, packet: Packet[Stream], offsets_s: Sequence[Fraction]) -> Iterator[Packet[Stream]]:
        assert packet.dts is not None
        assert packet.time_base is not None
        decoded_s = packet.dts * packet.time_base
        if self._recording is None or self._decoded_s is None:
            self._recording = len(offsets_s) - 1
        elif restarts(self._decoded_s, decoded_s):
            yield from self.released(offsets_s, end=True)
            self._recording = max(self._recording + 1, len(offsets_s) - 1)
        self._decoded_s = decoded_s
        self._waiting.append(packet)
        yield from self.released(offsets_s, end=len(self._waiting) > LONGEST_WAIT)

    def released(self, offsets_s: Sequence[Fraction], *, end: bool = False) -> Iterator[Packet[Stream]]:
        """What waits, if the offset of its recording is known now. end: else as the pictures' newest one."""
        if not self._waiting or self._recording is None:
            return
        if self._recording >= len(offsets_s):
            if not end:
                return
            self._recording = len(offsets_s) - 1
        waiting, self._waiting = self._waiting, []
        for packet in waiting:
            assert packet.dts is not None
            assert packet.time_base is not None
            shift = round(offsets_s[self._recording] / packet.time_base)
            packet.dts += shift
            if packet.pts is not None:
                packet.pts += shift
            decoded_s = packet.dts * packet.time_base
            if self._free_s is None or decoded_s >= self._free_s:  # a recording's sound may outlast its pictures
                self._free_s = decoded_s + Fraction(max(packet.duration or 0, 2), 2) * packet.time_base
                yield packet
