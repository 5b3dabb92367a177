"""Progress: the callback by which long work reports its state, and the bar that shows it on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TextIO, cast

if TYPE_CHECKING:
    from rich.console import Console

Progress = Callable[[str, float | None], None]  # the current step, and the share done (0..1) if known


def unseen(what: str, share: float | None) -> None:
    """A Progress that shows nothing."""


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """A bar on stderr, hidden until the first report and if stderr is not a terminal; removed at the end."""
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    console = progress_console()
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Bar(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task("", total=None, visible=False)
        yield lambda what, share: bar.update(
            task, description=what, total=None if share is None else 1.0, completed=share or 0.0, visible=True
        )


def progress_console() -> Console:
    """stderr, for bars. If its terminal closes, the display ends but the work continues."""
    from rich.console import Console

    return Console(stderr=True) if sys.stderr is None else Console(file=cast("TextIO", _Unfailing(sys.stderr)))


class _Unfailing:
    """A stream that may close without an error: later output is lost."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.encoding = stream.encoding

    def write(self, text: str) -> int:
        with suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()
