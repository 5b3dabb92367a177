"""What a source or an output may be called, and what may lie where a file is expected."""

from __future__ import annotations

import os
import random
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.faults.case import Case, Command
from tests.faults.containers import content_of, typed

NAMES = {
    "spaces": " a  b .mp4",
    "a newline": "a\nb.mp4",
    "a tab": "a\tb.mp4",
    "quotes": "a'b\"c`d.mp4",
    "a percent": "%05d %s.mp4",
    "braces": "{0}{x}.mp4",
    "brackets": "a[1].mp4",
    "a star": "a*b?.mp4",
    "a colon": "http:a.mp4",
    "a protocol": "concat:a|b.mp4",
    "a drive": "C:\\a\\b.mp4",
    "hashes": "#a;b&c=d.mp4",
    "umlauts": "öäüß.mp4",
    "joined accents": "é.mp4",
    "Chinese": "视频.mp4",
    "right to left": "\u202e4pm.exe.mp4",
    "an emoji": "🙂🧍🏽‍♀️.mp4",
    "no text": os.fsdecode(b"\xff\xfe\x80.mp4"),
    "a long name": "a" * 250 + ".mp4",
    "a dash": "./-save.mp4",
    "dots": "....mp4",
    "capitals": "A.MP4",
    "no suffix": "video",
    "two suffixes": "a.jpg.mp4",
    "a bell": "a\x07\x1b[31mb.mp4",
    "markup": "[bold]a[red].mp4",
    "a number's digits": "٣.mp4",
    "a tilde": "~root.mp4",
}


def named(name: str) -> Callable[[Path, random.Random], Command]:
    def make(folder: Path, rng: random.Random) -> Command:
        (folder / "in").mkdir()
        source = folder / "in" / name
        source.write_bytes(content_of("mp4"))
        return typed(source, folder, statuses=(0,))

    return make


def saved_as(name: str) -> Callable[[Path, random.Random], Command]:
    def make(folder: Path, rng: random.Random) -> Command:
        shared = Path(os.environ["FAULTS_SHARED"]) / "clip.mp4"
        name_of = name if Path(name).suffix.lower() == ".mp4" else f"{name}.mp4"
        (folder / "out").mkdir()
        video = folder / "out" / name_of
        return Command(argv=[str(shared), "--save", str(video)], statuses=(0,), outputs=(video,))

    return make


def instead(what: str) -> Callable[[Path, random.Random], Command]:
    """Something else lies where a video is expected."""

    def make(folder: Path, rng: random.Random) -> Command:
        path = folder / "in.mp4"
        statuses, words = (2,), ""
        match what:
            case "a folder":
                path.mkdir()
                words = "holds no images or videos"
            case "a link to nothing":
                path.symlink_to(folder / "nowhere")
                words = "does not exist"
            case "a link to itself":
                path.symlink_to(path)
            case "a link to a video":
                (folder / "real.mp4").write_bytes(content_of("mp4"))
                path.symlink_to(folder / "real.mp4")
                statuses = (0,)
            case "a socket":
                server = socket.socket(socket.AF_UNIX)
                server.bind(str(path))
            case "a device of zeros":
                path.symlink_to("/dev/zero")
            case "an empty device":
                path.symlink_to("/dev/null")
            case "a random device":
                path.symlink_to("/dev/urandom")
            case "a file in place of a folder":
                (folder / "file").write_text("x")
                path = folder / "file" / "in.mp4"
            case "a name that is too long":
                path = folder / ("a" * 300 + ".mp4")
            case "a path that is too long":
                path = folder / "/".join(["abcdefgh"] * 600)
        return typed(path, folder, statuses=statuses, words=words)

    return make


def pipe(kind: str) -> Callable[[Path, random.Random], Command]:
    """A named pipe as the source: somebody writes a video into it, half of one, nothing, or never opens it."""

    def make(folder: Path, rng: random.Random) -> Command:
        path = folder / "in.ts"
        os.mkfifo(path)
        content = content_of("ts")

        def write() -> None:
            with path.open("wb", buffering=0) as file:
                file.write(content if kind == "whole" else content[: len(content) // 2] if kind == "half" else b"")

        if kind == "never":
            return Command(
                argv=[str(path)],
                statuses=(143, 2),
                signals=[(1.0, "SIGTERM")],
                limit_s=20,
                whole=True,
            )
        return Command(
            argv=[str(path), "--json", str(folder / "out.jsonl")],
            outputs=(folder / "out.jsonl",),
            meanwhile=write,
            statuses=(0,) if kind == "whole" else (0, 1, 2),
        )

    return make


def folder_of(*names: str) -> Callable[[Path, random.Random], Command]:
    """A folder of several files, good and bad."""

    def make(folder: Path, rng: random.Random) -> Command:
        (folder / "in").mkdir()
        for name in names:
            (folder / "in" / name).write_bytes(content_of("mp4") if "bad" not in name else rng.randbytes(500))
        out = folder / "out"
        statuses = (2,) if any("bad" in name for name in names) else (0,)
        return Command(
            argv=[str(folder / "in"), "--save", str(out), "--json", str(folder / "a.jsonl")],
            statuses=statuses,
            outputs=[folder / "a.jsonl", *(out / name for name in names)],
        )

    return make


def removed_while_read(folder: Path, rng: random.Random) -> Command:
    source = folder / "in.mp4"
    shutil.copy(Path(os.environ["FAULTS_SHARED"]) / "clip.mp4", source)
    lines = folder / "out.jsonl"
    return Command(
        argv=[str(source), "--json", str(lines), "--realtime"],
        after=lines,
        meanwhile=source.unlink,
        statuses=(0,),
        outputs=(lines,),
    )


def cut_while_read(folder: Path, rng: random.Random) -> Command:
    source = folder / "in.mp4"
    shutil.copy(Path(os.environ["FAULTS_SHARED"]) / "clip.mp4", source)
    lines = folder / "out.jsonl"
    return Command(
        argv=[str(source), "--json", str(lines), "--realtime"],
        after=lines,
        statuses=(0, 1),
        meanwhile=lambda: os.truncate(source, 100),
        outputs=(lines,),
    )


def cases() -> Iterator[Case]:
    for words, name in NAMES.items():
        yield Case("names", f"source with {words}", named(name))
    for words in (
        "spaces",
        "a newline",
        "quotes",
        "a percent",
        "a colon",
        "umlauts",
        "no text",
        "an emoji",
        "a dash",
        "markup",
    ):
        yield Case("names", f"output with {words}", saved_as(NAMES[words]))
    for what in (
        "a folder",
        "a link to nothing",
        "a link to itself",
        "a link to a video",
        "a socket",
        "a device of zeros",
        "an empty device",
        "a random device",
        "a file in place of a folder",
        "a name that is too long",
        "a path that is too long",
    ):
        yield Case("names", what, instead(what))
    for kind in ("whole", "half", "nothing", "never"):
        yield Case("names", f"a pipe, {kind}", pipe(kind))
    yield Case("names", "a folder of three", folder_of("a.mp4", "b.mp4", "c.mp4"))
    yield Case("names", "a folder with a bad one", folder_of("a.mp4", "bad.mp4", "c.mp4"))
    yield Case("names", "a folder of bad ones", folder_of("bad1.mp4", "bad2.mp4"))
    yield Case("names", "removed while it is read", removed_while_read)
    yield Case("names", "cut while it is read", cut_while_read)
