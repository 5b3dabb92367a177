"""Shared by all commands: exit statuses, the parser, argument types, and the one-line report of a failure."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn, TypeVar

from core.spec import LARGEST_SIDE, SIDE_MULTIPLE

OK, FAILED, REFUSED = 0, 1, 2  # argparse also exits with 2; for a signal see core.signals.Stopped.status

EXIT_STATUSES = """exit status: 0 done; 1 failed while running, what came before is written; 2 invalid arguments, or an
input or output that cannot be opened; interrupted, outputs finished: 130 Ctrl-C, 143 SIGTERM, 129 SIGHUP.
"""

T = TypeVar("T")


class CommandParser(argparse.ArgumentParser):
    """Reports invalid arguments in one line; `--help` keeps the line breaks of its texts and ends with
    EXIT_STATUSES."""

    def __init__(self, *, prog: str, description: str | None = None, epilog: str = "") -> None:
        super().__init__(
            prog=prog,
            description=description,
            epilog=f"{epilog.rstrip()}\n\n{EXIT_STATUSES}".lstrip(),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        self.exit(REFUSED, f"{self.prog}: {' '.join(message.split())} (see --help)\n")


def complain(prog: str, message: object, status: int) -> int:
    """Print one line on stderr, or nothing if stderr is closed, as its terminal may be. Returns the status."""
    try:
        print(f"{prog}: {' '.join(str(message).split())}", file=sys.stderr, flush=True)
    except OSError:
        sys.stderr = None  # else Python writes the rest of its buffer again at exit, and reports the failure
    return status


def file_path(text: str) -> Path:
    """A file or folder. An empty path is rejected: an unset variable of a script gives one."""
    if not text:
        raise argparse.ArgumentTypeError("got an empty path, expected a file or folder name")
    return Path(text)


def number(kind: Callable[[str], float], low: float, high: float, expected: str) -> Callable[[str], float]:
    """The parser of a number from `low` to `high`; `expected` describes this range in the error message."""

    def parse(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = float("nan")
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"got {text}, expected {expected}")
        return value

    return parse


def count(text: str) -> int:
    """A positive whole number."""
    return int(number(int, 1, 2**62, "a positive whole number")(text))


def add_gpu_option(parser: argparse._ActionsContainer) -> None:
    """Add `--gpu N`, an index as `engine.gpu.find_gpu` takes it; None if it is not given."""
    parser.add_argument(
        "--gpu",
        type=number(int, 0, 1023, "a whole number from 0 on"),
        metavar="N",
        help="which NVIDIA GPU, of those that CUDA_VISIBLE_DEVICES shows (default: 0)",
    )


def input_side(text: str) -> int:
    """A side of the network's input."""
    value = int(text) if text.isdecimal() else 0
    if not SIDE_MULTIPLE <= value <= LARGEST_SIDE or value % SIDE_MULTIPLE:
        raise argparse.ArgumentTypeError(f"got {text}, expected a multiple of {SIDE_MULTIPLE} up to {LARGEST_SIDE}")
    return value


def parsed_by(parse: Callable[[str], T]) -> Callable[[str], T]:
    """`parse` as an argparse type. Its ValueError becomes ArgumentTypeError, the one whose text argparse shows."""

    def checked(text: str) -> T:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return checked
