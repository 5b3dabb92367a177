"""What is typed: values out of range, of another kind, missing, repeated, or that do not go together."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from tests.faults.case import Case, Command

VALUES = (
    "",
    " ",
    "0",
    "-1",
    "-0",
    "1e999",
    "nan",
    "inf",
    "-inf",
    "99999999999999999999",
    "1" * 400,
    "0x10",
    "1_000",
    "1,5",
    "１２",
    "٣",
    "½",
    "64.0",
    "true",
    "None",
    "--",
    "-",
    "%s",
    "\n",
    "a" * 5000,
    "../..",
    "\U0001f642",
)
NUMBERS = ("--size", "--max-people", "--min-score", "--min-joint", "--limit")
OTHERS = ("--engine", "--model", "--stats", "--web", "--device")
REFUSED: dict[str, Sequence[str]] = {
    "two models": ["--model", "a.onnx", "b.onnx"],
    "an abbreviation": ["--flipp"],
    "a misspelling": ["--sav", "x.mp4"],
    "no value": ["--save"],
    "no value for json": ["--json"],
    "a json into nothing": ["--json", "no/where/a.jsonl"],
    "a video as a text": ["--save", "a.txt"],
    "a picture of a video": ["--save", "a.png"],
    "one file given twice": ["--json", "x", "--plot", "x"],
    "a plan that is none": ["--model", "none.plan"],
    "weights that are none": ["--model", "none.pth"],
    "a model that is a folder": ["--model", "."],
    "a model that is a video": ["--model", "{clip}"],
    "a model with no name": ["--model", ""],
    "a size beside a plan": ["--model", "none.plan", "--size", "64"],
    "a window without a display": ["--show"],
    "a page on no port": ["--web", "0.0.0.0"],
    "a page on port 99999": ["--web", "99999"],
    "a page on a host of nowhere": ["--web", "nowhere.invalid:8000"],
    "a table of no kind": ["--table", "a.xlsx"],
    "a table into nothing": ["--table", "no/where/a.csv"],
    "a certificate that is none": ["--web", "8123", "--tls", "no.pem", "no.key"],
    "a certificate alone": ["--tls", "a", "b"],
    "an unknown option": ["--frobnicate"],
    "an unknown short one": ["-x"],
    "a second source that is missing": ["no.mp4"],
    "an empty second source": [""],
    "a camera beside a file": ["0"],
    "the browser beside a file": ["browser"],
    "a file and a folder for two": ["{clip}", "--save", "one.mp4"],
    "--save into the input": ["--save", "{clip}"],
    "--json into the input": ["--json", "{clip}"],
    "--plot into the input": ["--plot", "{clip}"],
}
SOURCES = {
    "nothing": [],
    "an empty one": [""],
    "a blank": [" "],
    "a dash": ["-"],
    "two dashes": ["--"],
    "a dot": ["."],
    "the root": ["/"],
    "a glob of nothing": ["*.nothing"],
    "a glob that is open": ["[a"],
    "a url of nothing": ["http://"],
    "a scheme of nobody": ["zzz://x/y"],
    "a url without a host": ["rtsp:///x"],
    "a url of a host of nowhere": ["rtsp://nowhere.invalid/x"],
    "a port of 99999": ["rtsp://127.0.0.1:99999/x"],
    "a closed port": ["rtsp://127.0.0.1:9/x"],
    "a file url": ["file:///no/where.mp4"],
    "a pipe of ours": ["pipe:77"],
    "a device by ffmpeg": ["lavfi://testsrc"],
    "a camera of three digits": ["100"],
    "a camera of twenty": ["12345678901234567890"],
    "a camera below 0": ["-1"],
    "a camera that is a fraction": ["1.5"],
    "the browser without a page": ["browser"],
    "a thousand missing ones": [f"no{i}.mp4" for i in range(1000)],
    "a zip of nothing": ["a.zip"],
    "a null device": ["/dev/null"],
    "the memory": ["/proc/self/mem"],
    "a status": ["/proc/self/status"],
}


def typed(*arguments: str, sources: Sequence[str] | None = None, statuses: Sequence[int] = (0, 2)) -> Command:
    shared = Path(os.environ["FAULTS_SHARED"])
    names = {"clip": str(shared / "clip.mp4"), "model": str(shared / "model.onnx")}
    given = [argument.format(**names) if argument in ("{clip}", "{model}") else argument for argument in arguments]
    return Command(argv=[*([names["clip"]] if sources is None else sources), *given], statuses=statuses, limit_s=40)


def into_the_model(folder: Path, rng: random.Random) -> Command:
    model = folder / "model.onnx"
    shutil.copy(Path(os.environ["FAULTS_SHARED"]) / "model.onnx", model)
    command = typed("--model", str(model), "--json", str(model), statuses=(2,))
    return replace(command, inputs=(model,), words="is the model")


def mixed(folder: Path, rng: random.Random) -> Command:
    """Several options at once, most of them nonsense."""
    arguments: list[str] = []
    for option in rng.sample(
        (*NUMBERS, *OTHERS, "--save", "--json", "--flip", "--serial", "--benchmark"), rng.randrange(2, 6)
    ):
        arguments += [option] if option in ("--flip", "--serial", "--benchmark") else [option, rng.choice(VALUES)]
    return typed(*arguments, statuses=(0, 2))


def cases() -> Iterator[Case]:
    for option in NUMBERS:
        for index, value in enumerate(VALUES):
            if (index + len(option)) % 3 == 0:  # a third of them for each
                shown = ascii(value)[:20]
                yield Case("arguments", f"{option} {index} {shown}", lambda f, r, o=option, v=value: typed(o, v))  # type: ignore[misc]
    for option in OTHERS:
        for index, value in enumerate(VALUES):
            if (index + len(option)) % 5 == 0:
                shown = ascii(value)[:20]
                yield Case(
                    "arguments",
                    f"{option} {index} {shown}",
                    lambda f, r, o=option, v=value: typed(o, v, statuses=(2,)),  # type: ignore[misc]
                )
    for name, arguments in REFUSED.items():
        yield Case("arguments", name, lambda f, r, a=arguments: typed(*a, statuses=(2,)))  # type: ignore[misc]
    for name, sources in SOURCES.items():
        yield Case("sources", name, lambda f, r, s=sources: typed(sources=s, statuses=(2,)))  # type: ignore[misc]
    yield Case("arguments", "--json into the model", into_the_model)
    for seed in range(20):
        yield Case("arguments", f"mixed {seed}", mixed)
