"""What all commands share: exit statuses, the parser, kinds of arguments, and the one line that reports a failure."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn, TypeVar

from core.spec import LARGEST_SIDE, SIDE_MULTIPLE

OK, FAILED, REFUSED = 0, 1, 2  # argparse, too, refuses with 2; a signal gives core.signals.Stopped.status

EXIT_STATUSES = """exit status: 0 done; 1 failed while running, what came before is written; 2 invalid arguments, or an
input or output that cannot be opened; interrupted, outputs finished: 130 Ctrl-C, 143 SIGTERM, 129 SIGHUP.
"""

T = TypeVar("T")


class CommandParser(argparse.ArgumentParser):
    """Reports invalid arguments in one line; `--help` keeps the line breaks of what it is given and ends with
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
    """One line on stderr; nothing where stderr is gone, as after its terminal was closed. Returns the status."""
    try:
        print(f"{prog}: {' '.join(str(message).split())}", file=sys.stderr, flush=True)
    except OSError:
        sys.stderr = None  # what is left in its buffer would be tried again, and reported, when Python ends
    return status


def file_path(text: str) -> Path:
    """A file or folder; an empty path, as an unset variable of a script gives, is refused."""
    if not text:
        raise argparse.ArgumentTypeError("got an empty path, expected a file or folder name")
    return Path(text)


def number(kind: Callable[[str], float], low: float, high: float, expected: str) -> Callable[[str], float]:
    """An argument from `low` to `high`; `expected` says so in words."""

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


def input_side(text: str) -> int:
    """A side of the network's input."""
    value = int(text) if text.isdecimal() else 0
    if not SIDE_MULTIPLE <= value <= LARGEST_SIDE or value % SIDE_MULTIPLE:
        raise argparse.ArgumentTypeError(f"got {text}, expected a multiple of {SIDE_MULTIPLE} up to {LARGEST_SIDE}")
    return value


def parsed_by(parse: Callable[[str], T]) -> Callable[[str], T]:
    """`parse` as an argument's type: argparse shows the text of this error only."""

    def checked(text: str) -> T:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return checked
