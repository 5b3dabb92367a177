"""What can be done to bytes. Every function is decided by its generator alone."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable

Damage = Callable[[bytes, random.Random], bytes]


def flipped(content: bytes, rng: random.Random, *, first: int = 0, last: int | None = None, count: int = 12) -> bytes:
    """`count` bytes between `first` and `last` become others."""
    damaged = bytearray(content)
    end = min(last if last is not None else len(damaged), len(damaged))
    for _ in range(count):
        damaged[rng.randrange(min(first, end - 1), end)] ^= rng.randrange(1, 256)
    return bytes(damaged)


def cut(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(1, len(content))]


def cut_near_the_end(content: bytes, rng: random.Random) -> bytes:
    return content[: len(content) - rng.randrange(1, min(len(content), 600))]


def beheaded(content: bytes, rng: random.Random) -> bytes:
    return content[rng.randrange(1, min(len(content), 400)) :]


def flipped_in_the_header(content: bytes, rng: random.Random) -> bytes:
    return flipped(content, rng, last=400, count=6)


def flipped_in_the_tail(content: bytes, rng: random.Random) -> bytes:
    """Where MP4, AVI and Matroska keep their index."""
    return flipped(content, rng, first=max(0, len(content) - 700), count=6)


def zeroed(content: bytes, rng: random.Random) -> bytes:
    start, length = rng.randrange(len(content)), rng.randrange(1, max(2, len(content) // 3))
    return content[:start] + bytes(len(content[start : start + length])) + content[start + length :]


def with_garbage_inside(content: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(content))
    return content[:at] + rng.randbytes(rng.randrange(1, 5000)) + content[at:]


def told_twice(content: bytes, rng: random.Random) -> bytes:
    return content + content


def shuffled(content: bytes, rng: random.Random) -> bytes:
    """Blocks of 188 bytes, a transport stream's packets, in another order."""
    blocks = [content[i : i + 188] for i in range(0, len(content), 188)]
    rng.shuffle(blocks)
    return b"".join(blocks)


def lying(content: bytes, rng: random.Random) -> bytes:
    """Some number of 32 bits in the first or last 800 bytes becomes an extreme one."""
    damaged = bytearray(content)
    for _ in range(3):
        at = rng.randrange(0, min(800, len(damaged) - 4))
        at = at if rng.random() < 0.5 else len(damaged) - 4 - at
        value = rng.choice([0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 65_535, 1_000_000])
        struct.pack_into(rng.choice(["<I", ">I"]), damaged, max(0, at), value)
    return bytes(damaged)


def patched(content: bytes, name: bytes, offset: int, value: bytes) -> bytes:
    """Bytes at `offset` after every box or chunk called `name`."""
    damaged = bytearray(content)
    at = content.find(name)
    assert at >= 0, name
    while at >= 0:
        damaged[at + offset : at + offset + len(value)] = value
        at = content.find(name, at + 1)
    return bytes(damaged)


# What spoils any file, by its bytes alone; `told_twice` and `shuffled` are for kinds whose parts follow each other.
ANY_FILE: tuple[Damage, ...] = (
    flipped,
    cut,
    cut_near_the_end,
    beheaded,
    flipped_in_the_header,
    zeroed,
    with_garbage_inside,
    lying,
)
