"""What an annotated copy keeps of its source beside the pictures: sound, chapters, metadata, aspect of the pixels."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Self

import av
from av.container import OutputContainer
from av.packet import Packet
from av.stream import Stream

from pipeline.hardware import one_line
from pipeline.sinks.sound import Sound, add_sound
from pipeline.sources import is_camera, is_image, is_url
from pipeline.sources.base import is_browser
from pipeline.sources.timeline import continued_packets

logger = logging.getLogger(__name__)

# Written by every muxer for itself.
OWN_METADATA = frozenset({"encoder", "major_brand", "minor_version", "compatible_brands", "DURATION", "vendor_id"})


class SourceTracks:
    """The other tracks of a video file, read a second time, beside the pictures. Close it.

    container: of the copy, nothing written yet; sound that its format cannot hold is coded anew, as AAC. Sound that
    cannot be read ends where it breaks, which is logged: the pictures are what the copy is made for.
    """

    def __init__(self, source: str, container: OutputContainer, *, audio: bool) -> None:
        self._source = source
        self._input = av.open(f"file:{source}")
        self._output = container
        self._video = video = self._input.streams.video[0]
        self.sample_aspect_ratio = video.sample_aspect_ratio or Fraction(1)  # of the container, else of the codec
        self.stored_wh = (video.codec_context.width, video.codec_context.height)
        time_base = video.time_base or Fraction(1, 90_000)
        self._origin_s = (video.start_time or 0) * time_base  # the copy's pictures begin at 0
        self._read_s = Fraction(0)  # time of the latest picture that was read here, in the copy
        container.metadata.update(_kept(self._input.metadata))
        self._targets: dict[int, Sound] = {}
        for stream in self._input.streams.audio if audio else ():
            target = add_sound(stream, container)
            if target is None:
                logger.warning("%s: its stream %d, sound, cannot be copied and is left out", source, stream.index)
                continue
            target.stream.metadata.update(_kept(stream.metadata))
            target.stream.disposition = stream.disposition
            self._targets[stream.index] = target
        self._waiting: Packet[Stream] | None = None
        self._packets: Iterator[Packet[Stream]] = self._read() if self._targets else iter(())
        self._copy_chapters()

    @classmethod
    def of(cls, source: str, container: OutputContainer, *, audio: bool) -> Self | None:
        """Of a file with video; None for a camera, stream or picture, or a file that is gone."""
        if is_camera(source) or is_url(source) or is_image(source) or is_browser(source) or not Path(source).is_file():
            return None
        with suppress(av.error.FFmpegError, OSError, IndexError):  # the source itself reports what is wrong with it
            return cls(source, container, audio=audio)
        return None

    def copy_until(self, time_s: float) -> None:
        """Sound up to a moment of the copy's time. Raises OSError if the file cannot be written."""
        while True:
            packet, self._waiting = self._waiting or next(self._packets, None), None
            if packet is None:
                return
            if packet.pts is not None and packet.time_base is not None:
                at_s = packet.pts * packet.time_base - self._origin_s
                if at_s > time_s:
                    self._waiting = packet
                    return
                self._put(packet.stream_index, packet)

    def finish(self, last_s: float, interval_s: float) -> None:
        """After the last picture, at `last_s`: all sound that is left; up to there if the source has more pictures."""
        missing_s = last_s + 1.5 * interval_s
        left = [] if self._waiting is None else [self._waiting]
        for packet in self._packets:  # not by the video's duration, which not every container states
            left.append(packet)
            if self._read_s > missing_s:
                break
        self._packets, self._waiting = chain(left, self._packets), None
        self.copy_until(float("inf") if self._read_s <= missing_s else last_s + interval_s)
        for index in tuple(self._targets):
            self._put(index, None)

    def close(self) -> None:
        self._input.close()

    def _put(self, index: int, packet: Packet[Stream] | None) -> None:
        """The next packet of a track, or its end; a track that fails ends here. Raises OSError if the file fails."""
        target = self._targets.get(index)
        if target is None:
            return
        try:
            for written in target.flush() if packet is None else target.packets(packet, self._origin_s):
                # Sound before the first picture, or AAC's first frame, which is silence: MP4 would delay all pictures.
                if written.pts is None or written.pts >= 0:
                    self._output.mux(written)
        except (av.error.FFmpegError, ValueError) as error:
            del self._targets[index]
            logger.warning("%s: its sound ends early: %s", self._source, one_line(error))

    def _read(self) -> Iterator[Packet[Stream]]:
        streams = [stream for stream in self._input.streams.audio if stream.index in self._targets]
        try:
            for packet in continued_packets(self._input, streams):
                if packet.stream_index != self._video.index:
                    yield packet
                else:
                    at = packet.dts if packet.pts is None else packet.pts
                    self._read_s = max(self._read_s, (at or 0) * packet.time_base - self._origin_s)
        except (av.error.FFmpegError, OSError) as error:
            logger.warning("%s: its sound ends early: %s", self._source, one_line(error))

    def _copy_chapters(self) -> None:
        chapters = self._input.chapters()
        for chapter in chapters:
            offset = round(self._origin_s / (chapter["time_base"] or 1))
            chapter["start"] = max(0, chapter["start"] - offset)
            chapter["end"] -= offset
        chapters = [chapter for chapter in chapters if chapter["end"] > 0]  # not before the first picture
        if chapters:
            with suppress(av.error.FFmpegError, ValueError):
                self._output.set_chapters(chapters)


def _kept(metadata: dict[str, str]) -> dict[str, str]:
    return {key: value for key, value in metadata.items() if key not in OWN_METADATA}
