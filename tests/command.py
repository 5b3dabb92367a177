"""Commands called in this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence


def exit_status(main: Callable[[list[str]], int], arguments: Sequence[object]) -> object:
    """What the shell would see, also where the parser ends the program itself."""
    try:
        return main([str(argument) for argument in arguments])
    except SystemExit as end:
        return end.code
