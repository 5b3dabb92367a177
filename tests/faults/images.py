"""Pictures: damaged, of rare kinds, with metadata that lies, or far too large."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np

from tests.faults import damage
from tests.faults.case import Case, Command
from tests.faults.containers import picture

SUFFIXES = ("jpg", "png", "webp", "tif", "bmp")
DAMAGES = damage.ANY_FILE


def coded(suffix: str, image: np.ndarray | None = None) -> bytes:
    done, content = cv2.imencode(f".{suffix}", picture(3) if image is None else image)
    assert done
    return content.tobytes()


def typed(folder: Path, suffix: str, content: bytes, **changes: object) -> Command:
    source, out, people = folder / f"in.{suffix}", folder / "out.png", folder / "out.jsonl"
    source.write_bytes(content)
    return Command(
        argv=[str(source), "--save", str(out), "--json", str(people)],
        outputs=(out, people),
        inputs=(source,),
        **changes,  # type: ignore[arg-type]
    )


def png(width: int, height: int, depth: int, color: int, rows: bytes | None = None) -> bytes:
    """Of one grey, written here: OpenCV does not write all that a PNG may hold. Layout: W3C PNG, section 5."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[color]
    if rows is None:
        row = b"\0" + b"\x50" * ((width * channels * depth + 7) // 8)
        packer = zlib.compressobj(1)
        rows = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    palette = chunk(b"PLTE", bytes(range(0, 256, 1)) * 3) if color == 3 else b""
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + palette + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def with_exif(orientation: int, *, offset: int = 8, count: int = 1, kind: int = 3) -> bytes:
    """A JPEG whose EXIF says so; offset: where the first directory is said to lie."""
    entry = struct.pack("<HHII", 0x0112, kind, count, orientation)
    tiff = b"II*\0" + struct.pack("<I", offset) + struct.pack("<H", 1) + entry + bytes(4)
    exif = b"Exif\0\0" + tiff
    content = coded("jpg")
    return content[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + content[2:]


def cmyk() -> bytes:
    """A JPEG of four components, by relabelling: what its pixels show is of no matter."""
    rng = np.random.default_rng(0)
    grey = cv2.imencode(".jpg", rng.integers(0, 255, (64, 64), dtype=np.uint8))[1].tobytes()
    at = grey.index(b"\xff\xc0")
    length = struct.unpack(">H", grey[at + 2 : at + 4])[0]
    component = grey[at + 10 : at + 13]
    frame = grey[at + 4 : at + 9] + b"\x04" + b"".join(bytes([n]) + component[1:] for n in range(1, 5))
    start = grey.index(b"\xff\xda")
    scan = b"\x04" + b"".join(bytes([n, 0]) for n in range(1, 5)) + grey[start + 7 : start + 10]
    return (
        grey[:at]
        + b"\xff\xc0"
        + struct.pack(">H", len(frame) + 2)
        + frame
        + grey[at + 2 + length : start]
        + b"\xff\xda"
        + struct.pack(">H", len(scan) + 2)
        + scan
        + grey[start + 10 :]
    )


def one(name: str, suffix: str, content: Callable[[random.Random], bytes], **changes: object) -> Case:
    return Case("images", name, lambda folder, rng: typed(folder, suffix, content(rng), **changes))


def cases() -> Iterator[Case]:
    for suffix in SUFFIXES:
        for how in DAMAGES:
            yield one(f"{suffix} {how.__name__}", suffix, lambda rng, s=suffix, h=how: h(coded(s), rng))  # type: ignore[misc]
    for orientation in (0, 1, 5, 6, 8, 9, 65_535):
        yield one(f"exif {orientation}", "jpg", lambda rng, o=orientation: with_exif(o), statuses=(0,))  # type: ignore[misc]
    yield one("exif of another type", "jpg", lambda rng: with_exif(6, kind=2), statuses=(0,))
    yield one("exif of a million values", "jpg", lambda rng: with_exif(6, count=1_000_000), statuses=(0,))
    for offset in (0, 4, 7, 5_000, 0xFFFFFFFF):
        yield one(f"exif directory at {offset}", "jpg", lambda rng, o=offset: with_exif(6, offset=o), statuses=(0,))  # type: ignore[misc]
    for depth, color in ((1, 0), (2, 0), (4, 0), (8, 0), (16, 0), (16, 2), (8, 4), (16, 4), (8, 6), (16, 6), (8, 3)):
        yield one(
            f"png {depth} bits, kind {color}",
            "png",
            lambda rng, d=depth, c=color: png(40, 30, d, c),  # type: ignore[misc]
            statuses=(0,),
        )
    for width, height in ((1, 1), (1, 500), (500, 1), (3, 2)):
        yield one(f"png {width}x{height}", "png", lambda rng, w=width, h=height: png(w, h, 8, 2), statuses=(0,))  # type: ignore[misc]
    yield one("100 megapixels", "png", lambda rng: png(10_000, 10_000, 8, 0), statuses=(0,), limit_s=120)
    for width, height in ((0, 0), (0, 5), (2**31 - 1, 2**31 - 1), (65_535, 65_535), (1_000_000, 1)):
        yield one(
            f"png that says {width}x{height}",
            "png",
            lambda rng, w=width, h=height: png(w, h, 8, 0, zlib.compress(b"\0" * 99)),  # type: ignore[misc]
        )
    yield one("cmyk", "jpg", lambda rng: cmyk())
    yield one("16-bit tiff", "tif", lambda rng: coded("tif", picture(1).astype(np.uint16) * 256), statuses=(0,))
    yield one("float tiff", "tif", lambda rng: coded("tif", picture(1).astype(np.float32)), statuses=(0, 2))
    for suffix in SUFFIXES:
        for other in SUFFIXES:
            if suffix != other and suffix < other:
                yield one(f"{suffix} called {other}", other, lambda rng, s=suffix: coded(s), statuses=(0,))  # type: ignore[misc]
        yield one(f"noise as {suffix}", suffix, lambda rng: rng.randbytes(3000), statuses=(2,))
        yield one(f"zeros as {suffix}", suffix, lambda rng: bytes(3000), statuses=(2,))
        yield one(f"nothing as {suffix}", suffix, lambda rng: b"", statuses=(2,), words="is empty")
