"""Videos: every container and codec at hand, damaged; headers that lie; frames that change in the middle."""

from __future__ import annotations

import functools
import random
import struct
import tempfile
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from tests.faults import damage
from tests.faults.case import Case, Command

WH = (160, 128)
COUNT = 16
# suffix, encoder, pixel format
FORMATS = {
    "mp4": ("mp4", "libx264", "yuv420p"),
    "mov": ("mov", "mpeg4", "yuv420p"),
    "mkv": ("mkv", "libx264", "yuv420p"),
    "hevc": ("mkv", "libx265", "yuv420p"),
    "webm": ("webm", "libvpx-vp9", "yuv420p"),
    "vp8": ("webm", "libvpx", "yuv420p"),
    "avi": ("avi", "mpeg4", "yuv420p"),
    "mjpeg": ("avi", "mjpeg", "yuvj420p"),
    "ts": ("ts", "libx264", "yuv420p"),
    "mpg": ("mpg", "mpeg2video", "yuv420p"),
    "flv": ("flv", "flv", "yuv420p"),
    "wmv": ("wmv", "wmv2", "yuv420p"),
    "gif": ("gif", "gif", "rgb8"),
    "m4v": ("m4v", "mpeg4", "yuv420p"),
    "prores": ("mov", "prores_ks", "yuv422p10le"),
}
DAMAGES = (*damage.ANY_FILE, damage.flipped_in_the_tail, damage.told_twice, damage.shuffled)
SEEDED_TWICE = (damage.flipped, damage.cut_near_the_end, damage.flipped_in_the_tail, damage.lying)


def picture(index: int, wh: tuple[int, int] = WH) -> np.ndarray:
    """A bright block that walks, before a pattern: something to code."""
    image = np.add.outer(np.arange(wh[1]) * 3, np.arange(wh[0]) * 5).astype(np.uint8)[..., None].repeat(3, 2) // 4
    image[wh[1] // 3 : 2 * wh[1] // 3, index * 4 % wh[0] : index * 4 % wh[0] + 20] = (220, 60, 200)
    return image


def encode(
    path: Path,
    encoder: str,
    pix_fmt: str,
    *,
    count: int = COUNT,
    wh: tuple[int, int] = WH,
    rate: Fraction = Fraction(25),
    pts: Callable[[int], int] | None = None,
    container_format: str | None = None,
) -> Path:
    with av.open(str(path), "w", format=container_format) as container:
        stream: Any = container.add_stream(encoder, rate=rate)
        stream.width, stream.height, stream.pix_fmt = *wh, pix_fmt
        if encoder == "libx265":
            stream.options = {"x265-params": "log-level=none"}
        for index in range(count):
            frame = av.VideoFrame.from_ndarray(picture(index, wh), "rgb24")
            if pts is not None:
                frame.pts, frame.time_base = pts(index), 1 / rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@functools.cache
def content_of(name: str) -> bytes:
    suffix, encoder, pix_fmt = FORMATS[name]
    with tempfile.TemporaryDirectory() as folder:
        return encode(Path(folder) / f"a.{suffix}", encoder, pix_fmt).read_bytes()


def typed(source: Path, folder: Path, *options: object, **changes: object) -> Command:
    video, people = folder / "out.mp4", folder / "out.jsonl"
    return Command(
        argv=[str(source), "--save", str(video), "--json", str(people), *map(str, options)],
        outputs=(video, people),
        same_count=(video, people),
        inputs=(source,),
        **changes,  # type: ignore[arg-type]
    )


def damaged(name: str, how: damage.Damage) -> Callable[[Path, random.Random], Command]:
    def make(folder: Path, rng: random.Random) -> Command:
        path = folder / f"in.{FORMATS[name][0]}"
        path.write_bytes(how(content_of(name), rng))
        return typed(path, folder)

    return make


def lies(name: str, box: bytes, offset: int, value: bytes) -> Callable[[Path, random.Random], Command]:
    def make(folder: Path, rng: random.Random) -> Command:
        path = folder / f"in.{FORMATS[name][0]}"
        path.write_bytes(damage.patched(content_of(name), box, offset, value))
        return typed(path, folder)

    return make


# offsets: ISO/IEC 14496-12 for MP4; RIFF's avih and strh for AVI; EBML ids for Matroska
U16, U32 = struct.Struct(">H").pack, struct.Struct(">I").pack
LIES = [
    ("mp4", "a size of 0", b"avc1", 28, U16(0) + U16(0)),
    ("mp4", "a size of 65535", b"avc1", 28, U16(65535) * 2),
    ("mp4", "half the size", b"avc1", 28, U16(80) + U16(64)),
    ("mp4", "a track of 0x0", b"tkhd", 80, U32(0) * 2),
    ("mp4", "a time scale of 0", b"mdhd", 16, U32(0)),
    ("mp4", "a time scale of 4 GHz", b"mdhd", 16, U32(0xFFFFFFFF)),
    ("mp4", "a duration of years", b"mdhd", 20, U32(0xFFFFFFFF)),
    ("mp4", "frames of no length", b"stts", 16, U32(0)),
    ("mp4", "frames of a day", b"stts", 16, U32(0x7FFFFFFF)),
    ("mp4", "four billion frames", b"stts", 12, U32(0xFFFFFFFF)),
    ("mp4", "more sizes than frames", b"stsz", 12, U32(0x00FFFFFF)),
    ("mp4", "chunks beyond the end", b"stco", 12, U32(0x7FFFFFFF)),
    ("mp4", "a codec of its own", b"avc1", 0, b"zzzz"),
    ("mp4", "another codec", b"avc1", 0, b"hvc1"),
    ("mp4", "a turn by no right angle", b"tkhd", 44, U32(0x00012345) + U32(0xFFFF1234)),
    ("mp4", "no matrix", b"tkhd", 44, bytes(36)),
    ("mp4", "a box longer than the file", b"moov", -4, U32(0x7FFFFFFF)),
    ("mp4", "an empty index", b"stsc", 8, U32(0)),
    ("avi", "a rate of 0", b"strh", 28, bytes(4)),
    ("avi", "a scale of 0", b"strh", 24, bytes(4)),
    ("avi", "a size of 0", b"strf", 8, bytes(8)),
    ("avi", "a size of two billion", b"strf", 8, b"\xff\xff\xff\x7f" * 2),
    ("avi", "a negative height", b"strf", 12, b"\x80\xff\xff\xff"),
    ("avi", "a codec of its own", b"strh", 8, b"zzzz"),
    ("mjpeg", "jpegs of another size", b"\xff\xc0", 5, U16(8) + U16(8)),
    ("mjpeg", "jpegs of 65500", b"\xff\xc0", 5, U16(65500) * 2),
    ("gif", "a size of 0", b"GIF89a", 6, bytes(4)),
    ("gif", "a size of 65535", b"GIF89a", 6, b"\xff" * 4),
    ("mkv", "a width of 0", b"\xb0\x81", 2, b"\x00"),
    ("mkv", "another codec", b"V_MPEG4/ISO/AVC", 0, b"V_MPEGH/ISO/XXX"),
    ("flv", "a size of all ones", b"FLV", 5, b"\xff" * 4),
]


def odd(name: str, **options: object) -> Case:
    """A whole file, of a kind that is rare; it must be read to its end."""

    def make(folder: Path, rng: random.Random) -> Command:
        coded: Any = options.get("coded", ("mp4", "libx264", "yuv420p"))
        suffix, encoder, pix_fmt = coded
        rest = {key: value for key, value in options.items() if key not in ("coded", "statuses")}
        path = encode(folder / f"in.{suffix}", encoder, pix_fmt, **rest)  # type: ignore[arg-type]
        return typed(path, folder, statuses=options.get("statuses", (0,)))

    return Case("containers", name, make)


def changes_in_the_middle(suffix: str, encoder: str, sizes: list[tuple[int, int]]) -> Callable[..., Command]:
    """Streams that may be joined byte by byte."""

    def make(folder: Path, rng: random.Random) -> Command:
        path = folder / f"in.{suffix}"
        pix_fmt = "yuvj420p" if encoder == "mjpeg" else "yuv420p"
        parts = [encode(folder / f"part{i}.{suffix}", encoder, pix_fmt, wh=wh, count=5) for i, wh in enumerate(sizes)]
        path.write_bytes(b"".join(part.read_bytes() for part in parts))
        return typed(path, folder, statuses=(0, 1))

    return make


def other_content(name: str, suffix: str, content: Callable[[random.Random], bytes]) -> Case:
    def make(folder: Path, rng: random.Random) -> Command:
        path = folder / f"in.{suffix}"
        path.write_bytes(content(rng))
        return typed(path, folder, statuses=(2,))

    return Case("containers", name, make)


def sound_alone(folder: Path, rng: random.Random) -> Command:
    path = folder / "in.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=48000, layout="mono")
        for i in range(10):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            frame.sample_rate, frame.pts = 48000, i * 1024
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return typed(path, folder, statuses=(2,), words="no video")


def cases() -> Iterator[Case]:
    for name in FORMATS:
        for how in DAMAGES:
            for seed in range(2 if how in SEEDED_TWICE else 1):
                yield Case("containers", f"{name} {how.__name__} {seed}", damaged(name, how))
    for name, words, box, offset, value in LIES:
        yield Case("headers", f"{name} {words}", lies(name, box, offset, value))
    for pix_fmt in ("yuv444p", "yuv422p", "yuv420p10le", "yuv444p10le", "gray", "gray10le"):
        yield odd(f"pixels {pix_fmt}", coded=("mp4", "libx264", pix_fmt))
    for pix_fmt in ("bgr0", "yuv444p"):
        yield odd(f"lossless {pix_fmt}", coded=("mkv", "ffv1", pix_fmt))
    for wh in ((2, 2), (16, 16), (2, 2000), (2000, 2), (162, 130), (4096, 64)):
        yield odd(f"size {wh[0]}x{wh[1]}", wh=wh, count=3)
    for wh in ((1, 1), (33, 17), (161, 129)):
        yield odd(f"odd size {wh[0]}x{wh[1]}", coded=("mkv", "ffv1", "bgr0"), wh=wh, count=3)
    for rate in (Fraction(1, 1000), Fraction(1000), Fraction(30000, 1001), Fraction(90_000)):
        yield odd(f"rate {rate}".replace("/", " over "), rate=rate, coded=("mkv", "libx264", "yuv420p"))
    yield odd("timestamps far away", coded=("mkv", "libx264", "yuv420p"), pts=lambda i: 10_000_000 + i)
    yield odd("timestamps that jump", coded=("mkv", "mjpeg", "yuvj420p"), pts=lambda i: i * i * 100)
    yield odd("negative timestamps", coded=("mp4", "libx264", "yuv420p"), pts=lambda i: i - 8)
    yield odd("one frame", count=1)
    yield odd("no frame", count=0, statuses=(2,))
    for suffix, encoder in (("ts", "libx264"), ("h264", "libx264"), ("mjpeg", "mjpeg"), ("mpg", "mpeg2video")):
        for sizes in ([(160, 128), (320, 240)], [(320, 240), (64, 48), (160, 128)]):
            name = f"{suffix} changes its size {len(sizes) - 1} times"
            yield Case("containers", name, changes_in_the_middle(suffix, encoder, sizes))
    for suffix in ("mp4", "mkv", "avi", "ts", "gif", "webm"):
        yield other_content(f"noise as {suffix}", suffix, lambda rng: rng.randbytes(20_000))
    yield other_content("zeros as mp4", "mp4", lambda rng: bytes(50_000))
    yield other_content("a page as mp4", "mp4", lambda rng: b"<!doctype html><title>404</title>" * 20)
    yield other_content("a program as mkv", "mkv", lambda rng: b"\x7fELF" + rng.randbytes(9000))
    yield other_content("a playlist as mp4", "mp4", lambda rng: b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n")
    yield other_content("a concat list as mp4", "mp4", lambda rng: b"ffconcat version 1.0\nfile '/etc/passwd'\n")
    yield Case("containers", "sound alone", sound_alone)
