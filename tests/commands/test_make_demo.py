"""The README's animation."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from commands.make_demo import write_animation


def test_an_animation_has_all_pictures_and_repeats(tmp_path):
    rng = np.random.default_rng(0)
    write_animation(tmp_path / "a.webp", rng.integers(0, 255, (5, 48, 64, 3), np.uint8), interval_s=Fraction(2, 25))
    content = (tmp_path / "a.webp").read_bytes()
    assert (content[:4], content[8:12]) == (b"RIFF", b"WEBP")
    chunks: dict[bytes, list[bytes]] = {}
    at = 12
    while at < len(content):
        name, size = content[at : at + 4], int.from_bytes(content[at + 4 : at + 8], "little")
        chunks.setdefault(name, []).append(content[at + 8 : at + 8 + size])
        at += 8 + size + size % 2
    assert len(chunks[b"ANMF"]) == 5
    assert int.from_bytes(chunks[b"ANIM"][0][4:6], "little") == 0  # repetitions: without end
    assert int.from_bytes(chunks[b"ANMF"][0][12:15], "little") == 80  # milliseconds
