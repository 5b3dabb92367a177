"""Griffe extension for `make docs`: shows the arguments that a docstring describes as a list.

Our docstrings describe arguments in sentences such as `limit: stop after this many frames. serial: …`, which Markdown
would join into one paragraph. Each one becomes an item of a list; the docstrings in the code are not changed.
"""

from __future__ import annotations

import re

import griffe


class ArgumentLists(griffe.Extension):
    def on_object(self, *, obj: griffe.Object, **kwargs: object) -> None:
        if obj.docstring is not None and (names := _names(obj)):
            obj.docstring.value = with_lists(obj.docstring.value, names)


def with_lists(text: str, names: set[str]) -> str:
    """The text with list items for its descriptions, which start at a line or a sentence: `name: …` or `name, name: …`.

    Text after the last description of a paragraph stays in its item, unless it starts with "Raises" or "Returns".
    """
    name = "|".join(sorted(map(re.escape, names), key=len, reverse=True))
    start = re.compile(rf"(?:^|(?<=[.;] )|(?<=\n))((?:{name})(?:,? (?:and )?(?:{name}))*): ")
    return "\n\n".join(_paragraph(paragraph, start) for paragraph in re.split(r"\n\s*\n", text))


def _paragraph(text: str, start: re.Pattern[str]) -> str:
    joined = re.sub(r"\n\s*", " ", text)
    pieces = start.split(joined)  # the text before, then name, description, name, description …
    if len(pieces) == 1:
        return text
    *items, last = zip(pieces[1::2], pieces[2::2], strict=True)
    end = re.search(r"(?<=\. )(?:Raises|Returns) ", last[1])
    rest = "" if end is None else last[1][end.start() :]
    items.append((last[0], last[1] if end is None else last[1][: end.start()]))
    lines = [f"* **{names}**: {description.strip()}" for names, description in items]
    return "\n\n".join(part for part in (pieces[0].strip(), "\n".join(lines), rest) if part)


def _names(obj: griffe.Object) -> set[str]:
    """The arguments of a function; of a class also those of `__init__` and its attributes."""
    if isinstance(obj, griffe.Function):
        return {parameter.name for parameter in obj.parameters} - {"self", "cls"}
    if not isinstance(obj, griffe.Class):
        return set()
    init = obj.members.get("__init__")
    arguments = {p.name for p in init.parameters} if isinstance(init, griffe.Function) else set()
    return (arguments | {name for name, member in obj.members.items() if member.is_attribute}) - {"self"}
