"""Sources of the long run: copies of a clip as files of constant frame rate, and an RTSP server that breaks off."""

from __future__ import annotations

import io
import random
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path

import av

TS_PACKET, TS_PER_RTP = 188, 7
MP2T = 33  # RTP payload type of an MPEG transport stream
SDP = (
    "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=soak\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
    f"m=video 0 RTP/AVP {MP2T}\r\na=control:track\r\n"
)


def write_slow_copy(clip: Path, path: Path, *, rate: int, wh: tuple[int, int]) -> None:
    """The clip's pictures in this size at `rate` frames a second, coded anew with a key frame each 2 seconds."""
    with av.open(str(clip)) as source, av.open(str(path), "w") as copy:
        stream = copy.add_stream("libx264", rate=rate, options={"preset": "veryfast", "crf": "23", "bf": "0"})
        stream.width, stream.height = wh
        stream.pix_fmt = "yuv420p"
        stream.codec_context.gop_size = 2 * rate
        for number, picture in enumerate(source.decode(video=0)):
            small = picture.reformat(*wh, format="yuv420p")
            small.pts, small.time_base = number, Fraction(1, rate)
            copy.mux(stream.encode(small))
        copy.mux(stream.encode(None))


def transport_stream(path: Path) -> list[bytes]:
    """The file as an MPEG transport stream: the bytes of each picture."""
    pictures: list[bytes] = []
    buffer = io.BytesIO()
    with av.open(str(path)) as source, av.open(buffer, "w", format="mpegts", options={"flush_packets": "1"}) as copy:
        taken = source.streams.video[0]
        stream = copy.add_stream_from_template(taken)
        for packet in source.demux(taken):
            if packet.dts is None:
                continue
            packet.stream = stream
            copy.mux(packet)
            pictures.append(buffer.getvalue())
            buffer.seek(0)
            buffer.truncate()
    return pictures


class BreakingServer:
    """RTSP over TCP: every path gives the clip in a loop at `rate`; connections break off unless `steady` is set.

    A connection lasts 10 to 40 seconds; then it is closed, or reset in the middle of a packet, and for up to 3 seconds
    new ones are refused by silence or closed at once, as a camera does that restarts.
    """

    def __init__(self, pictures: list[bytes], *, rate: int, seed: int = 0) -> None:
        self.steady = threading.Event()
        self.breaks = 0
        self._pictures, self._rate = pictures, rate
        self._rng = random.Random(seed)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._away_until = 0.0

    @contextmanager
    def running(self) -> Iterator[BreakingServer]:
        threading.Thread(target=self._accept, name="soak-rtsp", daemon=True).start()
        try:
            yield self
        finally:
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                if not self.steady.is_set() and time.monotonic() < self._away_until:
                    connection.close()
                    continue
                threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        with suppress(OSError), connection:
            connection.settimeout(20)
            while True:
                request = connection.recv(65536)
                if not request:
                    return
                method = request.split(b" ", 1)[0]
                body, extra = "", "Session: 1\r\nPublic: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN\r\n"
                if method == b"DESCRIBE":
                    body, extra = SDP, f"Content-Type: application/sdp\r\nContent-Length: {len(SDP)}\r\n"
                elif method == b"SETUP":
                    extra = "Session: 1\r\nTransport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n"
                number = request.split(b"CSeq:")[1].split(b"\r\n")[0].strip().decode()
                connection.sendall(f"RTSP/1.0 200 OK\r\nCSeq: {number}\r\n{extra}\r\n{body}".encode())
                if method == b"PLAY":
                    self._play(connection)
                    return

    def _play(self, connection: socket.socket) -> None:
        started, sequence, shown = time.monotonic(), 0, 0
        until = started + self._rng.uniform(10, 40)
        while self.steady.is_set() or time.monotonic() < until:
            content = self._pictures[shown % len(self._pictures)]
            for at in range(0, len(content), TS_PACKET * TS_PER_RTP):
                payload = content[at : at + TS_PACKET * TS_PER_RTP]
                stamp = shown * 90_000 // self._rate & 0xFFFFFFFF
                header = struct.pack(">BBHII", 0x80, MP2T, sequence & 0xFFFF, stamp, 1)
                connection.sendall(struct.pack(">cBH", b"$", 0, len(header) + len(payload)) + header + payload)
                sequence += 1
            shown += 1
            time.sleep(max(0.0, started + shown / self._rate - time.monotonic()))
        self.breaks += 1
        self._away_until = time.monotonic() + self._rng.uniform(0, 3)
        if self._rng.random() < 0.5:  # a reset, in the middle of a packet
            connection.sendall(b"$\0\5\0half")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
