"""Progress: how work that takes long reports what it does; and the bar that shows it on a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

Progress = Callable[[str, float | None], None]  # what is being done, and the share done (0..1) if known


def unseen(what: str, share: float | None) -> None:
    """A Progress that shows nothing."""


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """A bar on stderr, hidden until the first report and where stderr is no terminal; gone at the end."""
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Bar(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task("", total=None, visible=False)
        yield lambda what, share: bar.update(
            task, description=what, total=None if share is None else 1.0, completed=share or 0.0, visible=True
        )
