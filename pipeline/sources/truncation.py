"""Detects media files that are shorter than their header declares; FFmpeg reads those without an error."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

MKV_HEADER = 0x1A45DFA3
MKV_SEGMENT = 0x18538067
MP4_BOXES = frozenset(  # the types of boxes at the top of a file; cameras append bytes of their own
    b"ftyp styp moov moof mdat mfra sidx ssix meta free skip wide uuid emsg pdin pnot prft udta PICT".split()
)


def is_cut_short(path: Path) -> bool:
    """True if an MP4/MOV, AVI, Matroska/WebM or GIF file is shorter than it declares; False without such a length."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(12)
        if head[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide"):
            return _mp4_end(file, size) > size
        if head[:4] == b"RIFF":
            return 8 + int.from_bytes(head[4:8], "little") > size
        if head[:4] == MKV_HEADER.to_bytes(4, "big"):
            return _matroska_end(file) > size
        if head[:4] == b"GIF8":
            file.seek(max(0, size - 64))
            return b"\x3b" not in file.read()[-2:]  # the trailer; some writers pad it
    return False


def _mp4_end(file: BinaryIO, size: int) -> int:
    """Where the last top-level box ends. Layout: ISO/IEC 14496-12, section 4.2."""
    start = 0
    while start + 8 <= size:
        file.seek(start)
        header = file.read(16)
        length = int.from_bytes(header[:4], "big")
        if length == 1:  # the length does not fit into 32 bits
            length = int.from_bytes(header[8:16], "big")
        if length < 8 or header[4:8] not in MP4_BOXES:  # 0: up to the end of the file; others: padding, a trailer
            return size
        start += length
    return start


def _matroska_end(file: BinaryIO) -> int:
    """Where the segment ends; 0 if it declares no length (a live recording). Layout: RFC 8794 and RFC 9559."""
    file.seek(0)
    start = 0
    while True:
        identifier, id_bytes = _vint(file, keep_marker=True)
        length, length_bytes = _vint(file, keep_marker=False)
        if length == (1 << 7 * length_bytes) - 1:  # all ones: unknown
            return 0
        start += id_bytes + length_bytes + length
        if identifier == MKV_SEGMENT:
            return start
        if identifier != MKV_HEADER:
            return 0
        file.seek(start)


def _vint(file: BinaryIO, *, keep_marker: bool) -> tuple[int, int]:
    """Read a variable-length number, whose leading zero bits give its length. Returns the value and the byte count."""
    first = file.read(1)
    if not first or not first[0]:
        return 0, 1
    count = 9 - first[0].bit_length()
    value = first[0] if keep_marker else first[0] & ((1 << (8 - count)) - 1)
    return int.from_bytes(bytes([value]) + file.read(count - 1), "big"), count
