"""Outputs: a disk that is full, files removed while running, links to the input, pipes that are closed."""

from __future__ import annotations

import os
import random
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.faults.case import Case, Command

LONG = ("--loop", "--limit", "80")


def clip() -> Path:
    return Path(os.environ["FAULTS_SHARED"]) / "clip.mp4"


def full_after(size: int, suffix: str, *options: str) -> Callable[[Path, random.Random], Command]:
    """No file may be longer than `size` bytes, as on a disk that is full."""

    def make(folder: Path, rng: random.Random) -> Command:
        out = folder / f"out{suffix}"
        option = {".jsonl": "--json", ".csv": "--table", ".parquet": "--table", ".png": "--save"}.get(suffix, "--save")
        source = _picture(folder) if suffix == ".png" else clip()
        loops = () if suffix == ".png" else options or LONG
        return Command(
            argv=[str(source), option, str(out), *loops],
            fsize=size,
            statuses=(0, 1) if size > 3000 else (1, 2),
        )

    return make


def _picture(folder: Path) -> Path:
    import cv2

    from tests.faults.containers import picture

    cv2.imwrite(str(folder / "in.png"), picture(2, (320, 240)))
    return folder / "in.png"


def device(option: str, path: str, *, statuses: tuple[int, ...]) -> Callable[[Path, random.Random], Command]:
    def make(folder: Path, rng: random.Random) -> Command:
        return Command(argv=[str(clip()), option, path], statuses=statuses)

    return make


def linked(option: str, how: str, suffix: str) -> Callable[[Path, random.Random], Command]:
    """The output is the input, under another name."""

    def make(folder: Path, rng: random.Random) -> Command:
        source = folder / "in.mp4"
        shutil.copy(clip(), source)
        out = folder / f"out{suffix}"
        match how:
            case "a hard link":
                os.link(source, out)
            case "a symbolic link":
                out.symlink_to(source)
            case "a link by a link":
                (folder / "between").symlink_to(source)
                out.symlink_to(folder / "between")
            case "another way":
                (folder / "sub").mkdir()
                out = folder / "sub" / ".." / "in.mp4"
        return Command(
            argv=[str(source), option, str(out)],
            inputs=(source,),
            statuses=(2,),
            words="is the input",
        )

    return make


def same_output(how: str) -> Callable[[Path, random.Random], Command]:
    def make(folder: Path, rng: random.Random) -> Command:
        video, lines = folder / "a.mp4", folder / "a.jsonl"
        video.write_bytes(b"older")
        os.link(video, lines) if how == "a hard link" else lines.symlink_to(video)
        return Command(
            argv=[str(clip()), "--save", str(video), "--json", str(lines)], statuses=(2,), words="given twice"
        )

    return make


def meanwhile(what: str) -> Callable[[Path, random.Random], Command]:
    def make(folder: Path, rng: random.Random) -> Command:
        out = folder / "out"
        out.mkdir()
        video, lines = out / "out.mp4", out / "out.jsonl"

        def act() -> None:
            match what:
                case "the video is removed":
                    video.unlink()
                case "the lines are removed":
                    lines.unlink()
                case "the folder is removed":
                    shutil.rmtree(out)
                case "the folder is moved":
                    out.rename(folder / "elsewhere")
                case "the lines are emptied":
                    os.truncate(lines, 0)
                case "the video is replaced":
                    (folder / "other").write_bytes(b"other")
                    (folder / "other").replace(video)
                case "the folder is locked":
                    out.chmod(0o500)

        return Command(
            argv=[str(clip()), "--loop", "--limit", "40", "--realtime", "--save", str(video), "--json", str(lines)],
            after=lines,
            meanwhile=act,
            statuses=(0, 1),
        )

    return make


def pipe_out(option: str, name: str, how: str) -> Callable[[Path, random.Random], Command]:
    """A named pipe as output: its reader takes all, leaves after some, or takes nothing."""

    def make(folder: Path, rng: random.Random) -> Command:
        path = folder / name
        os.mkfifo(path)

        def read() -> None:
            with path.open("rb") as file:
                if how == "takes all":
                    while file.read(65536):
                        pass
                elif how == "leaves":
                    file.read(10)

        return Command(
            argv=[str(clip()), *LONG, option, str(path)],
            meanwhile=read,
            statuses={"takes all": (0,), "leaves": (0, 1), "takes nothing": (0, 1, 2)}[how],  # 2: it is gone
        )

    return make


def closed(name: str, *options: str, whole: bool = True) -> Callable[[Path, random.Random], Command]:
    """stdout or stderr is a pipe whose reader has gone. The work is done and written in any case."""

    def make(folder: Path, rng: random.Random) -> Command:
        video, lines = folder / "out.mp4", folder / "out.jsonl"
        return Command(
            argv=[str(clip()), "--save", str(video), "--json", str(lines), *options],
            closed=name,
            whole=whole,
            outputs=(video, lines),
            same_count=(video, lines),
            statuses=(0, 1) if name == "stderr" else (1,),
            words="" if name == "stderr" else "stdout",
        )

    return make


def occupied(name: str, option: str, words: str = "") -> Callable[[Path, random.Random], Command]:
    """Something is where the output should be made."""

    def make(folder: Path, rng: random.Random) -> Command:
        out = folder / "out.mp4" if option == "--save" else folder / "out.jsonl"
        match name:
            case "a folder":
                out.mkdir()
            case "a link to nothing":
                out.symlink_to(folder / "nowhere" / "x")
            case "a link to itself":
                out.symlink_to(out)
            case "a folder that may not be written":
                (folder / "locked").mkdir(mode=0o500)
                out = folder / "locked" / out.name
            case "a file where its folder should be":
                (folder / "file").write_text("x")
                out = folder / "file" / out.name
            case "an older file":
                out.write_bytes(b"older" * 100_000)
            case "a name that is too long":
                out = folder / ("a" * 260 + out.suffix)
        statuses = (0, 2) if name in ("a folder", "a folder that may not be written", "an older file") else (2,)
        return Command(
            argv=[str(clip()), option, str(out)], statuses=statuses, outputs=(out,) if name == "an older file" else ()
        )

    return make


def slow_reader(folder: Path, rng: random.Random) -> Command:
    """The lines go into a pipe that is read slowly: the video waits for it, and nothing is lost."""
    path = folder / "out.jsonl"
    os.mkfifo(path)
    counted = threading.Event()

    def read() -> None:
        with path.open("rb", buffering=0) as file:
            for _ in range(30):
                counted.wait(0.02)
                file.read(200)
            while file.read(65536):
                pass

    return Command(argv=[str(clip()), "--json", str(path)], meanwhile=read, statuses=(0,))


def cases() -> Iterator[Case]:
    for suffix in (".mp4", ".mkv", ".mov", ".jsonl", ".csv"):
        for size in (100, 400, 1000, 2500, 4000, 5000, 9000):
            yield Case("outputs", f"a disk full after {size} bytes, {suffix}", full_after(size, suffix))
    for size in (100, 200, 4000):
        yield Case("outputs", f"a disk full after {size} bytes, .png", full_after(size, ".png"))
    for option, path, statuses in (
        ("--json", "/dev/full", (1, 2)),
        ("--json", "/dev/null", (0,)),
        ("--json", "/dev/zero", (0,)),
        ("--save", "/dev/full", (2,)),
        ("--json", "/proc/self/mem", (1, 2)),
        ("--json", "/proc/nothing", (2,)),
        ("--save", "/proc/a.mp4", (2,)),
        ("--table", "/dev/full", (2,)),
    ):
        yield Case("outputs", f"{option} {path}", device(option, path, statuses=statuses))
    for how in ("a hard link", "a symbolic link", "a link by a link", "another way"):
        yield Case("outputs", f"--save over the input by {how}", linked("--save", how, ".mp4"))
        yield Case("outputs", f"--json over the input by {how}", linked("--json", how, ".jsonl"))
    for how in ("a hard link", "a symbolic link"):
        yield Case("outputs", f"two outputs in one file by {how}", same_output(how))
    for what in (
        "the video is removed",
        "the lines are removed",
        "the folder is removed",
        "the folder is moved",
        "the lines are emptied",
        "the video is replaced",
        "the folder is locked",
    ):
        yield Case("outputs", f"{what} while running", meanwhile(what))
    for how in ("takes all", "leaves", "takes nothing"):
        yield Case("outputs", f"the lines into a pipe whose reader {how}", pipe_out("--json", "a.jsonl", how))
        yield Case("outputs", f"the video into a pipe whose reader {how}", pipe_out("--save", "a.mp4", how))
    yield Case("outputs", "the lines into a pipe that is read slowly", slow_reader)
    for options in ((), ("--stats", "json"), ("--benchmark",)):
        yield Case("outputs", f"stdout is closed {' '.join(options)}", closed("stdout", *options))
        yield Case("outputs", f"stderr is closed {' '.join(options)}", closed("stderr", *options))
    yield Case("outputs", "stderr is closed and a signal comes", closed("stderr", *LONG))
    for name in (
        "a folder",
        "a link to nothing",
        "a link to itself",
        "a folder that may not be written",
        "a file where its folder should be",
        "an older file",
        "a name that is too long",
    ):
        yield Case("outputs", f"--save: {name}", occupied(name, "--save"))
        yield Case("outputs", f"--json: {name}", occupied(name, "--json"))
